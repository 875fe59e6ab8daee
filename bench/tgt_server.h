// TgtServer: a tgtd of our own on loopback, with one LUN on a file in memory and two portals. It
// has its own control port, socket and folder, and is ended by its process number.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

class TgtServer {
 public:
  static constexpr const char* kTargetName = "iqn.2026-01.local.iscsi-blkback:bench";
  static constexpr std::uint16_t kLun = 1;
  static constexpr std::uint64_t kBytes = 256ULL * 1024 * 1024;

  [[nodiscard]] static Result<std::unique_ptr<TgtServer>> start();
  ~TgtServer();
  TgtServer(const TgtServer&) = delete;
  TgtServer& operator=(const TgtServer&) = delete;

  [[nodiscard]] const std::array<std::uint16_t, 2>& ports() const { return ports_; }  // 127.0.0.1

 private:
  TgtServer() = default;
  [[nodiscard]] Result<void> launch();
  [[nodiscard]] bool administer(const std::string& arguments) const;

  std::string folder_;
  std::string image_;
  int control_port_ = 0;
  std::array<std::uint16_t, 2> ports_{};
  pid_t process_ = -1;
};

}  // namespace iscsi_blkback
