// TgtProcess: a real tgtd on loopback for a test or a benchmark: own control socket, free ports,
// its disks are files in memory, in a folder of its own. It ends with the object, and with the
// thread that started it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "tests/support/spawned_process.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class TgtProcess {
 public:
  struct Options {
    std::uint64_t disk_bytes = std::uint64_t{16} << 20;  // of LUN 1
    std::uint32_t block_bytes = 512;                     // logical blocks of LUN 1
    // With data in every block: the holes of a sparse file would be cheaper to read.
    bool filled = false;
    std::size_t portals = 1;  // on 127.0.0.1, each with a port of its own
  };

  // True when tgtd and tgtadm are installed and may run (root).
  [[nodiscard]] static bool available();

  TgtProcess();
  ~TgtProcess();  // kills tgtd, removes the folder
  TgtProcess(const TgtProcess&) = delete;
  TgtProcess& operator=(const TgtProcess&) = delete;

  // Starts tgtd and creates the target with LUN 1; again after kill() with the same ports, options
  // and contents.
  [[nodiscard]] Result<void> start(const Options& options);
  void kill();  // SIGKILL: connections are reset
  void signal(int number);
  // tgtadm --lld iscsi with these arguments.
  [[nodiscard]] Result<void> administer(const std::vector<std::string>& arguments);
  // One more LUN, sparse; 2 and so on.
  [[nodiscard]] Result<void> add_lun(std::uint16_t number, std::uint64_t bytes,
                                     std::uint32_t block_bytes = 512);

  [[nodiscard]] std::uint16_t port(std::size_t portal = 0) const { return ports_.at(portal); }
  [[nodiscard]] pid_t pid() const { return process_; }
  [[nodiscard]] std::string disk_path(std::uint16_t lun = kLun) const;

  static constexpr const char* kTargetName = "iqn.2026-01.test:tgt";
  static constexpr std::uint16_t kLun = 1;

 private:
  [[nodiscard]] pid_t run(const std::vector<std::string>& arguments) const;

  TemporaryFolder folder_{memory_folder()};
  std::vector<std::uint16_t> ports_;
  pid_t process_ = -1;
};

}  // namespace iscsi_blkback
