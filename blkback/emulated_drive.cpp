#include "blkback/emulated_drive.h"

namespace iscsi_blkback {
namespace {

// The number of a disk among those of its kind.
std::uint32_t disk_of(std::uint32_t device_id) {
  constexpr std::uint32_t kFirstIde = 3;
  constexpr std::uint32_t kSecondIde = 22;
  const std::uint32_t minor = device_id & 0xff;
  if (device_id >> 28 != 0) {
    return device_id >> 8 & 0xfffff;
  }
  switch (device_id >> 8) {
    case kFirstIde:
      return minor >> 6;
    case kSecondIde:
      return 2 + (minor >> 6);
    default:
      return minor >> 4;
  }
}

}  // namespace

bool is_emulated_drive(std::string_view name, std::uint32_t device_id, bool cdrom) {
  constexpr std::uint32_t kDrives = 4;
  constexpr std::uint32_t kCdDrives = 5;
  const bool scsi = name.starts_with("sd");
  if (!scsi && !name.starts_with("xvd") && !name.starts_with("hd") && !name.starts_with('d')) {
    return false;
  }
  const std::uint32_t disk = disk_of(device_id);
  return cdrom ? disk < kCdDrives : scsi || disk < kDrives;
}

}  // namespace iscsi_blkback
