#include "blkback/nbd/nbd_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace iscsi_blkback {
namespace {

constexpr int kNbdBacklog = 4;

// libxl puts the path into a URI, and that into a list of QEMU's options, both as it is.
bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' ||
         c == '.' || c == '_' || c == '-';
}

}  // namespace

Result<UniqueFd> listen_nbd(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} is too long for the path of a socket", path));
  }
  if (!std::all_of(path.begin(), path.end(), is_plain)) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} has other characters than letters, digits, '.', '_' and '-', which "
                            "xl and QEMU would misread: choose another run_directory",
                            path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    return tl::unexpected(system_error("a socket cannot be made", errno));
  }
  ::unlink(path.c_str());
  // The mode is set before listen(), so nobody can have connected with a laxer one.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(socket.get(), kNbdBacklog) != 0) {
    return tl::unexpected(system_error(fmt::format("cannot listen on {}", path), errno));
  }
  return socket;
}

}  // namespace iscsi_blkback
