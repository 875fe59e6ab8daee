#include "tests/support/tgt_process.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace iscsi_blkback {
namespace {

constexpr const char* kTgtd = "/usr/sbin/tgtd";
constexpr const char* kTgtadm = "/usr/sbin/tgtadm";

// tgtd tells its control sockets apart by a number and by the folder that they are in; ours is its
// own, so that the number need not differ between the targets of one test.
std::string control_number() {
  return fmt::to_string(1000 + ::getpid() % 30000);
}

}  // namespace

bool TgtProcess::available() {
  return ::geteuid() == 0 && ::access(kTgtd, X_OK) == 0 && ::access(kTgtadm, X_OK) == 0;
}

TgtProcess::TgtProcess() = default;

TgtProcess::~TgtProcess() {
  kill();
}

std::string TgtProcess::disk_path(std::uint16_t lun) const {
  return folder_ / fmt::format("disk{}.img", lun);
}

Result<void> TgtProcess::start(const Options& options) {
  if (!available()) {
    return fail(ErrorCode::unavailable, "tgtd needs root and the package tgt");
  }
  if (auto made = make_disk_file(disk_path(), options.disk_bytes, options.filled); !made) {
    return made;
  }
  if (ports_.empty()) {
    ports_ = free_ports(options.portals);
  }
  if (ports_.size() != options.portals || ports_.empty()) {
    return fail(ErrorCode::io, "no free ports for tgtd");
  }
  process_ = run({kTgtd, "-f", "-C", control_number(), "--iscsi",
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
  if (auto made = make_disk_file(disk_path(number), bytes, false); !made) {
    return made;
  }
  return administer({"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun",
                     fmt::to_string(number), "-b", disk_path(number), "--blocksize",
                     fmt::to_string(block_bytes)});
}

Result<void> TgtProcess::administer(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {kTgtadm, "-C", control_number(), "--lld", "iscsi"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const pid_t child = run(command);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(ErrorCode::io, fmt::format("tgtadm {} failed", fmt::join(arguments, " ")));
  }
  return {};
}

pid_t TgtProcess::run(const std::vector<std::string>& arguments) const {
  return spawn(arguments, folder_.path(), {"TGT_IPC_SOCKET", folder_ / "control"});
}

void TgtProcess::signal(int number) {
  if (process_ > 0) {
    ::kill(process_, number);
  }
}

void TgtProcess::kill() {
  // tgtd does not end on SIGTERM while it has targets.
  kill_spawned(process_);
}

}  // namespace iscsi_blkback
