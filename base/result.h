// Errors as values. Everything that can fail in operation returns Result<T>; bugs are assertions.
// A message is one sentence a person can act on: what is wrong, where, and what to do.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace iscsi_blkback {

enum class ErrorCode : std::uint8_t {
  invalid_argument,  // the caller's or the operator's input is wrong
  not_found,
  permission_denied,
  unavailable,  // the other side is not there now; a retry may help
  timed_out,
  protocol,   // the other side broke its protocol
  io,         // a system call failed
  exhausted,  // a bound of ours was reached
  conflict,   // a transaction must be retried, or somebody else holds it
  unsupported,
};

[[nodiscard]] const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

// "what: strerror(errno_value)", with the ErrorCode that fits errno_value best.
[[nodiscard]] Error system_error(std::string what, int errno_value);

// On in release too: going on after a broken invariant can lose data, stopping cannot.
#define ISCSI_BLKBACK_ASSERT(condition)                                                      \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

}  // namespace iscsi_blkback
