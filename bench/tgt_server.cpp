#include "bench/tgt_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

// A port that was free a moment ago.
std::uint16_t free_port() {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return 0;
  }
  return ntohs(address.sin_port);
}

// With contents: the holes of a sparse file would be cheaper to read than data.
Result<void> make_image(const std::string& path, std::uint64_t bytes) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return tl::unexpected(system_error("cannot make " + path, errno));
  }
  const std::vector<char> piece(1024 * 1024, 'x');
  for (std::uint64_t done = 0; done < bytes; done += piece.size()) {
    if (::write(file.get(), piece.data(), piece.size()) != static_cast<ssize_t>(piece.size())) {
      return tl::unexpected(system_error("cannot write " + path, errno));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<TgtServer>> TgtServer::start() {
  std::unique_ptr<TgtServer> server(new TgtServer);
  auto launched = server->launch();
  if (!launched) {
    return tl::unexpected(launched.error());
  }
  return server;
}

Result<void> TgtServer::launch() {
  std::string pattern = "/tmp/iscsi-blkback-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) {
    return tl::unexpected(system_error("cannot make a folder in /tmp", errno));
  }
  folder_ = pattern;
  image_ = fmt::format("/dev/shm/iscsi-blkback-bench-{}.img", ::getpid());
  if (auto made = make_image(image_, kBytes); !made) {
    return made;
  }
  control_port_ = 1 + ::getpid() % 30000;
  ports_ = {free_port(), free_port()};

  process_ = ::fork();
  if (process_ < 0) {
    return tl::unexpected(system_error("cannot fork", errno));
  }
  if (process_ == 0) {
    const int log = ::open((folder_ + "/tgtd.log").c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(log, 1);
    ::dup2(log, 2);
    ::setenv("TGT_IPC_SOCKET", (folder_ + "/ipc").c_str(), 1);
    ::execlp("tgtd", "tgtd", "-f", "-C", std::to_string(control_port_).c_str(), "--iscsi",
             fmt::format("portal=127.0.0.1:{}", ports_[0]).c_str(), nullptr);
    ::_exit(127);
  }
  const std::string make_target = fmt::format("--op new --mode target --tid 1 -T {}", kTargetName);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!administer(make_target)) {
    int status = 0;
    if (::waitpid(process_, &status, WNOHANG) == process_) {
      process_ = -1;
      return fail(ErrorCode::unavailable, "tgtd does not start; is the package tgt installed?");
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(ErrorCode::timed_out, "tgtd does not answer");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!administer(
          fmt::format("--op new --mode logicalunit --tid 1 --lun {} -b {}", kLun, image_)) ||
      !administer("--op bind --mode target --tid 1 -I ALL") ||
      !administer(fmt::format("--op new --mode portal --param portal=127.0.0.1:{}", ports_[1]))) {
    return fail(ErrorCode::unavailable, "tgtadm cannot set up the target");
  }
  return {};
}

bool TgtServer::administer(const std::string& arguments) const {
  return std::system(
             fmt::format("TGT_IPC_SOCKET={}/ipc tgtadm -C {} --lld iscsi {} > /dev/null 2>&1",
                         folder_, control_port_, arguments)
                 .c_str()) == 0;
}

TgtServer::~TgtServer() {
  if (process_ > 0) {
    // tgtd does not end on SIGTERM while it has targets.
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  std::error_code ignored;
  if (!image_.empty()) {
    std::filesystem::remove(image_, ignored);
  }
  if (!folder_.empty()) {
    std::filesystem::remove_all(folder_, ignored);
  }
}

}  // namespace iscsi_blkback
