// The sockets at which the device model of an HVM guest has the guest's disks by NBD, so that the firmware boots
// from them before there is any PV driver: nbd-DOMID-DEVID-TAG.sock in the run directory, each a FirmwareSocket.
// Control thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/domain_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

// For so long QEMU tries to connect again. A process that ends is followed by the next one within seconds, unless
// lost writes have to be fenced first: quiesce_time is 60 s where nobody has set it.
inline constexpr std::chrono::seconds kFirmwareReconnectDelay{120};

// One of a guest's disks as its device model knows it.
struct FirmwareDrive {
  std::uint32_t device_id = 0;
  // Of the disk's target. QEMU sends what was not answered to whoever listens at the path next, and does not
  // look what disk that is: another target on the same number must be somewhere else.
  std::uint32_t tag = 0;

  [[nodiscard]] static FirmwareDrive of(std::uint32_t device_id, std::string_view params);
  bool operator==(const FirmwareDrive&) const = default;
  bool operator<(const FirmwareDrive& other) const {
    return std::tie(device_id, tag) < std::tie(other.device_id, other.tag);
  }
};

// What libxl gives the device model for the disk: the node physical-device-path.
[[nodiscard]] std::string firmware_device_path(const std::string& run_directory, DomainId guest,
                                               const FirmwareDrive& drive);
// The same for a drive of this number.
[[nodiscard]] bool is_firmware_device_path(std::string_view text, const std::string& run_directory,
                                           DomainId guest, std::uint32_t device_id);

// Makes the sockets of one guest, which takes rights in the run directory that its process may not have.
class FirmwareSockets {
 public:
  virtual ~FirmwareSockets() = default;
  // As listen_nbd() does, in the place of one that a former process has left. conflict: there are kMost.
  [[nodiscard]] virtual Result<UniqueFd> open(const FirmwareDrive& drive) = 0;
  virtual void remove(const FirmwareDrive& drive) = 0;

  static constexpr std::size_t kMost = 32;  // more drives than QEMU has room for
};

// With the rights of this process.
class OwnFirmwareSockets final : public FirmwareSockets {
 public:
  OwnFirmwareSockets(std::string run_directory, DomainId guest)
      : run_directory_(std::move(run_directory)), guest_(guest) {}
  [[nodiscard]] Result<UniqueFd> open(const FirmwareDrive& drive) override;
  void remove(const FirmwareDrive& drive) override;
  // Also those that former processes of a guest of this number have left.
  void remove_all();

 private:
  const std::string run_directory_;
  const DomainId guest_;
  std::set<FirmwareDrive> open_;
};

// A disk's: clients wait there for a server, and for the next one (server_end()).
class FirmwareSocket {
 public:
  // sockets outlive it.
  [[nodiscard]] static Result<FirmwareSocket> open(FirmwareSockets& sockets,
                                                   const FirmwareDrive& drive);
  ~FirmwareSocket();  // its path is gone
  FirmwareSocket(FirmwareSocket&& other) noexcept
      : sockets_(std::exchange(other.sockets_, nullptr)),
        drive_(other.drive_),
        listening_(std::move(other.listening_)) {}
  FirmwareSocket& operator=(FirmwareSocket&&) = delete;

  // For an NbdServer: accepts what comes here. The error is dup(2)'s.
  [[nodiscard]] Result<UniqueFd> server_end() const;

 private:
  FirmwareSocket(FirmwareSockets& sockets, const FirmwareDrive& drive, UniqueFd listening)
      : sockets_(&sockets), drive_(drive), listening_(std::move(listening)) {}

  FirmwareSockets* sockets_;
  FirmwareDrive drive_;
  UniqueFd listening_;
};

}  // namespace iscsi_blkback
