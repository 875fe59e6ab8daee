// TgtProcess: a real tgtd on loopback for a test: own control socket, a free port, one disk of a
// file in a temporary folder. Dies with the test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

class TgtProcess {
 public:
  // True when tgtd and tgtadm are installed and may run (root).
  [[nodiscard]] static bool available();

  TgtProcess();
  ~TgtProcess();  // kills tgtd, removes the folder
  TgtProcess(const TgtProcess&) = delete;
  TgtProcess& operator=(const TgtProcess&) = delete;

  // Starts tgtd and creates the target with LUN 1; again after kill() with the same port and file.
  [[nodiscard]] Result<void> start(std::uint64_t disk_bytes);
  void kill();  // SIGKILL: connections are reset
  void signal(int number);
  // tgtadm --lld iscsi with these arguments.
  [[nodiscard]] Result<void> administer(const std::vector<std::string>& arguments);

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string disk_path() const { return folder_ + "/disk.img"; }

  static constexpr const char* kTargetName = "iqn.2026-01.test:tgt";

 private:
  std::string folder_;
  std::uint16_t port_ = 0;
  pid_t process_ = -1;
};

}  // namespace iscsi_blkback
