#include "tests/support/tgt_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
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
namespace {

constexpr const char* kTgtd = "/usr/sbin/tgtd";
constexpr const char* kTgtadm = "/usr/sbin/tgtadm";

// tgtd tells its control sockets apart by a number and by the folder that they are in; ours is its
// own, so that the number need not differ between the targets of one test.
std::string control_number() {
  return fmt::to_string(1000 + ::getpid() % 30000);
}

// Ports that were free a moment ago, no two of them the same.
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

void sleep_a_little() {
  const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
  ::nanosleep(&pause, nullptr);
}

std::string memory_folder() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                         : std::filesystem::temp_directory_path().string();
}

}  // namespace

bool TgtProcess::available() {
  return ::geteuid() == 0 && ::access(kTgtd, X_OK) == 0 && ::access(kTgtadm, X_OK) == 0;
}

TgtProcess::TgtProcess() {
  std::string pattern = memory_folder() + "/iscsi-blkback-tgt-XXXXXX";
  if (::mkdtemp(pattern.data()) != nullptr) {
    folder_ = pattern;
  }
}

TgtProcess::~TgtProcess() {
  kill();
  if (!folder_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
}

std::string TgtProcess::disk_path(std::uint16_t lun) const {
  return fmt::format("{}/disk{}.img", folder_, lun);
}

Result<void> TgtProcess::start(const Options& options) {
  if (!available()) {
    return fail(ErrorCode::unavailable, "tgtd needs root and the package tgt");
  }
  if (folder_.empty()) {
    return fail(ErrorCode::io, "cannot make a folder for tgtd in " + memory_folder());
  }
  if (auto made = make_disk(kLun, options.disk_bytes, options.filled); !made) {
    return made;
  }
  if (ports_.empty()) {
    ports_ = free_ports(options.portals);
  }
  if (ports_.size() != options.portals || ports_.empty()) {
    return fail(ErrorCode::io, "no free ports for tgtd");
  }
  process_ = spawn({kTgtd, "-f", "-C", control_number(), "--iscsi",
                    fmt::format("portal=127.0.0.1:{}", ports_.front())});
  Result<void> created = fail(ErrorCode::unavailable, "tgtd did not start");
  for (int attempt = 0; attempt < 500 && !created; ++attempt) {
    sleep_a_little();
    created = administer({"--mode", "target", "--op", "new", "--tid", "1", "-T", kTargetName});
  }
  if (!created) {
    return created;
  }
  std::vector<std::vector<std::string>> commands = {
      {"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", disk_path(),
       "--blocksize", fmt::to_string(options.block_bytes)},
      {"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params",
       "scsi_id=60a98000deadbeef,scsi_sn=SN1"},
      {"--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"}};
  for (std::size_t portal = 1; portal < ports_.size(); ++portal) {
    commands.push_back({"--mode", "portal", "--op", "new", "--param",
                        fmt::format("portal=127.0.0.1:{}", ports_[portal])});
  }
  for (const auto& command : commands) {
    if (auto done = administer(command); !done) {
      return done;
    }
  }
  return {};
}

Result<void> TgtProcess::add_lun(std::uint16_t number, std::uint64_t bytes,
                                 std::uint32_t block_bytes) {
  if (auto made = make_disk(number, bytes, false); !made) {
    return made;
  }
  return administer({"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun",
                     fmt::to_string(number), "-b", disk_path(number), "--blocksize",
                     fmt::to_string(block_bytes)});
}

Result<void> TgtProcess::administer(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {kTgtadm, "-C", control_number(), "--lld", "iscsi"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const pid_t child = spawn(command);
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
  // tgtd does not end on SIGTERM while it has targets.
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }
}

pid_t TgtProcess::spawn(const std::vector<std::string>& arguments) const {
  const pid_t child = ::fork();
  if (child != 0) {
    return child;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setenv("TGT_IPC_SOCKET", (folder_ + "/control").c_str(), 1);
  const int log = ::open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
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

Result<void> TgtProcess::make_disk(std::uint16_t lun, std::uint64_t bytes, bool filled) const {
  const std::string path = disk_path(lun);
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

}  // namespace iscsi_blkback
