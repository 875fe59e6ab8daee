#include "tests/support/istgt_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace iscsi_blkback {
namespace {

constexpr const char* kIstgt = "/usr/sbin/istgt";

// InitialR2T: it knows Yes only. UnitControl: it does not start without.
constexpr const char* kConfiguration = R"([Global]
  NodeBase "iqn.2026-01.test"
  PidFile {0}/pid
  AuthFile {0}/auth
  MediaDirectory {0}
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 32
  MaxConnections 8
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  Portal UC1 127.0.0.1:{2}
  Netmask 127.0.0.1
[PortalGroup1]
  Portal DA1 127.0.0.1:{1}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName istgt
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth {3}
  LUN0 Storage {0}/disk.img Auto
)";

// Its last word before it takes connections.
bool says_that_it_serves(const std::string& log) {
  std::ifstream file(log);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return text.find("command queuing") != std::string::npos;
}

}  // namespace

bool IstgtProcess::available() {
  return ::geteuid() == 0 && ::access(kIstgt, X_OK) == 0;
}

IstgtProcess::IstgtProcess() = default;

IstgtProcess::~IstgtProcess() {
  kill_spawned(process_);
}

Result<void> IstgtProcess::write_configuration(const Options& options) const {
  const auto write = [this](const char* name, const std::string& text) {
    const std::string path = folder_ / name;
    std::ofstream(path) << text;
    std::error_code ignored;
    std::filesystem::permissions(
        path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write, ignored);
    return std::filesystem::exists(path);
  };
  if (!write("auth", "") || !write("conf", fmt::format(kConfiguration, folder_.path(), ports_[0],
                                                       ports_[1], options.queue_depth))) {
    return fail(ErrorCode::io, "cannot write istgt's configuration in " + folder_.path());
  }
  return {};
}

Result<void> IstgtProcess::start(const Options& options) {
  if (!available()) {
    return fail(ErrorCode::unavailable, "istgt needs root and the package istgt");
  }
  ports_ = free_ports(2);
  if (ports_.empty()) {
    return fail(ErrorCode::io, "no folder or no free ports for istgt");
  }
  if (auto made = make_disk_file(folder_ / "disk.img", options.disk_bytes, false); !made) {
    return made;
  }
  if (auto written = write_configuration(options); !written) {
    return written;
  }
  process_ = spawn({kIstgt, "-D", "-c", folder_ / "conf"}, folder_.path());
  for (int attempt = 0; attempt < 500; ++attempt) {
    sleep_a_little();
    if (says_that_it_serves(folder_ / "log")) {
      return {};
    }
  }
  return fail(ErrorCode::unavailable, "istgt did not start");
}

}  // namespace iscsi_blkback
