#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace iscsi_blkback {
namespace {

ErrorCode code_for(int errno_value) {
  switch (errno_value) {
    case EINVAL:
    case ENAMETOOLONG:
      return ErrorCode::invalid_argument;
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return ErrorCode::not_found;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::permission_denied;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
      return ErrorCode::unavailable;
    case ETIMEDOUT:
    case ETIME:
      return ErrorCode::timed_out;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case ENOBUFS:
      return ErrorCode::exhausted;
    case EAGAIN:
    case EBUSY:
    case EEXIST:
    case EADDRINUSE:
      return ErrorCode::conflict;
    case ENOSYS:
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
      return ErrorCode::unsupported;
    default:
      return ErrorCode::io;
  }
}

}  // namespace

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid argument";
    case ErrorCode::not_found:
      return "not found";
    case ErrorCode::permission_denied:
      return "permission denied";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::timed_out:
      return "timed out";
    case ErrorCode::protocol:
      return "protocol error";
    case ErrorCode::io:
      return "input/output error";
    case ErrorCode::exhausted:
      return "exhausted";
    case ErrorCode::conflict:
      return "conflict";
    case ErrorCode::unsupported:
      return "unsupported";
  }
  return "unknown error";
}

Error system_error(std::string what, int errno_value) {
  // generic_category() rather than strerror(): that one is not thread-safe.
  what += ": ";
  what += std::generic_category().message(errno_value);
  return Error{code_for(errno_value), std::move(what)};
}

}  // namespace iscsi_blkback
