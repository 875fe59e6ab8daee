#include "tests/support/spawned_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/unique_fd.h"

namespace iscsi_blkback {

std::string memory_folder() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                         : std::filesystem::temp_directory_path().string();
}

std::vector<std::uint16_t> free_ports(std::size_t count) {
  std::vector<UniqueFd> probes;
  std::vector<std::uint16_t> ports;
  for (std::size_t i = 0; i < count; ++i) {
    UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(probe.get(), generic, length) != 0 ||
        ::getsockname(probe.get(), generic, &length) != 0) {
      return {};
    }
    ports.push_back(ntohs(address.sin_port));
    probes.push_back(std::move(probe));
  }
  return ports;
}

pid_t spawn(const std::vector<std::string>& arguments, const std::string& folder,
            const std::pair<std::string, std::string>& variable) {
  const pid_t child = ::fork();
  if (child != 0) {
    return child;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!variable.first.empty()) {
    ::setenv(variable.first.c_str(), variable.second.c_str(), 1);
  }
  const int log = ::open((folder + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  std::vector<char*> vector;
  for (const std::string& argument : arguments) {
    vector.push_back(const_cast<char*>(argument.c_str()));
  }
  vector.push_back(nullptr);
  ::execv(vector[0], vector.data());
  ::_exit(127);
}

void kill_spawned(pid_t& process) {
  if (process > 0) {
    ::kill(process, SIGKILL);
    ::waitpid(process, nullptr, 0);
    process = -1;
  }
}

Result<void> make_disk_file(const std::string& path, std::uint64_t bytes, bool filled) {
  const bool exists = ::access(path.c_str(), F_OK) == 0;
  const UniqueFd disk(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!disk.valid() || ::ftruncate(disk.get(), static_cast<off_t>(bytes)) != 0) {
    return tl::unexpected(system_error("cannot make " + path, errno));
  }
  if (exists || !filled) {
    return {};
  }
  std::array<char, 65536> piece{};
  piece.fill('x');
  for (std::uint64_t done = 0; done < bytes; done += piece.size()) {
    if (::write(disk.get(), piece.data(), piece.size()) != static_cast<ssize_t>(piece.size())) {
      return tl::unexpected(system_error("cannot write " + path, errno));
    }
  }
  return {};
}

void sleep_a_little() {
  const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
  ::nanosleep(&pause, nullptr);
}

}  // namespace iscsi_blkback
