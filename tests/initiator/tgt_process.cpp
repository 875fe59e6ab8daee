#include "tests/initiator/tgt_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

// Every tgtd needs its own control number; the process id of the test keeps parallel tests apart.
std::string control_number() {
  return fmt::to_string(1000 + ::getpid() % 30000);
}

std::uint16_t free_port() {
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(probe.get(), generic, length) != 0 ||
      ::getsockname(probe.get(), generic, &length) != 0) {
    return 0;
  }
  return ntohs(address.sin_port);
}

pid_t spawn(const std::vector<std::string>& arguments, const std::string& output,
            const std::string& socket_path) {
  const pid_t child = ::fork();
  if (child != 0) {
    return child;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setenv("TGT_IPC_SOCKET", socket_path.c_str(), 1);
  const int log = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  std::vector<char*> vector;
  for (const std::string& argument : arguments) {
    vector.push_back(const_cast<char*>(argument.c_str()));
  }
  vector.push_back(nullptr);
  ::execvp(vector[0], vector.data());
  ::_exit(127);
}

void sleep_a_little() {
  const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
  ::nanosleep(&pause, nullptr);
}

}  // namespace

bool TgtProcess::available() {
  return ::geteuid() == 0 && ::access("/usr/sbin/tgtd", X_OK) == 0 &&
         ::access("/usr/sbin/tgtadm", X_OK) == 0;
}

TgtProcess::TgtProcess() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tgt-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) != nullptr) {
    folder_ = pattern;
  }
  port_ = free_port();
}

TgtProcess::~TgtProcess() {
  kill();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Result<void> TgtProcess::start(std::uint64_t disk_bytes) {
  const UniqueFd disk(::open(disk_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (disk.get() < 0 || ::ftruncate(disk.get(), static_cast<off_t>(disk_bytes)) != 0) {
    return tl::unexpected(system_error("disk file", errno));
  }
  process_ = spawn({"/usr/sbin/tgtd", "-f", "-C", control_number(), "--iscsi",
                    fmt::format("portal=127.0.0.1:{}", port_)},
                   folder_ + "/log", folder_ + "/tgt");
  Result<void> created = fail(ErrorCode::unavailable, "tgtd did not start");
  for (int attempt = 0; attempt < 500 && !created; ++attempt) {
    sleep_a_little();
    created = administer({"--mode", "target", "--op", "new", "--tid", "1", "-T", kTargetName});
  }
  if (!created) {
    return created;
  }
  const std::vector<std::vector<std::string>> commands = {
      {"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", disk_path()},
      {"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params",
       "scsi_id=60a98000deadbeef,scsi_sn=SN1"},
      {"--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"}};
  for (const auto& command : commands) {
    if (auto done = administer(command); !done) {
      return done;
    }
  }
  return {};
}

Result<void> TgtProcess::administer(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"/usr/sbin/tgtadm", "-C", control_number(), "--lld", "iscsi"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const pid_t child = spawn(command, folder_ + "/log", folder_ + "/tgt");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(ErrorCode::io, fmt::format("tgtadm {} failed", fmt::join(arguments, " ")));
  }
  return {};
}

void TgtProcess::signal(int number) {
  if (process_ > 0) {
    ::kill(process_, number);
  }
}

void TgtProcess::kill() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }
}

}  // namespace iscsi_blkback
