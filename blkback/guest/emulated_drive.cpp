#include "blkback/guest/emulated_drive.h"

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
  // Disks and partitions from 16 on have numbers of another form.
  const bool extended = device_id >> 28 != 0;
  const std::uint32_t disk = extended ? device_id >> 8 & 0xfffff : device_id >> 4 & 0xf;
  return cdrom ? disk < kCdDrives : scsi || disk < kDrives;
}

}  // namespace iscsi_blkback
