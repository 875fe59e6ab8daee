// IstgtProcess: a real istgt on loopback for a test: free ports, its disk a file in memory, all in
// a folder of its own. It ends with the object, and with the thread that started it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "tests/support/spawned_process.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class IstgtProcess {
 public:
  struct Options {
    std::uint64_t disk_bytes = std::uint64_t{16} << 20;  // of LUN 0, the only one
    // Not 0, its default: then two of its threads send at once, and the header of one answer comes
    // between the header and the data of another.
    std::uint32_t queue_depth = 32;
  };

  // True when istgt is installed and may run (root).
  [[nodiscard]] static bool available();

  IstgtProcess();
  ~IstgtProcess();  // kills istgt, removes the folder
  IstgtProcess(const IstgtProcess&) = delete;
  IstgtProcess& operator=(const IstgtProcess&) = delete;

  // Returns when it takes connections.
  [[nodiscard]] Result<void> start(const Options& options);

  [[nodiscard]] std::uint16_t port() const { return ports_.at(0); }

  static constexpr const char* kTargetName = "iqn.2026-01.test:istgt";
  static constexpr std::uint16_t kLun = 0;

 private:
  [[nodiscard]] Result<void> write_configuration(const Options& options) const;

  TemporaryFolder folder_{memory_folder()};
  std::vector<std::uint16_t> ports_;  // the portal's, and that of its control socket
  pid_t process_ = -1;
};

}  // namespace iscsi_blkback
