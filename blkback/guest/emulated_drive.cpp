#include "blkback/guest/emulated_drive.h"

#include "blkback/guest/disk_number.h"

namespace iscsi_blkback {

bool is_emulated_drive(std::string_view name, std::uint32_t device_id, bool cdrom) {
  constexpr std::uint32_t kDrives = 4;
  constexpr std::uint32_t kCdDrives = 5;
  if (name.starts_with("hd")) {
    return true;  // libxl knows hda to hdd only
  }
  const bool scsi = name.starts_with("sd");
  if (!scsi && !name.starts_with("xvd") && !name.starts_with('d')) {
    return false;
  }
  const std::uint32_t disk = disk_number(device_id);
  return cdrom ? disk < kCdDrives : scsi || disk < kDrives;
}

}  // namespace iscsi_blkback
