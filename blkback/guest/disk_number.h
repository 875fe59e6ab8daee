// Which of a guest's disks a device number is: xvda is 0, xvdb 1, whichever partition
// (xen-vbd-interface(7)). Pure; any thread.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

// Disks and partitions from 16 on have numbers of another form.
[[nodiscard]] constexpr std::uint32_t disk_number(std::uint32_t device_id) {
  const bool extended = device_id >> 28 != 0;
  return extended ? device_id >> 8 & 0xfffff : device_id >> 4 & 0xf;
}

}  // namespace iscsi_blkback
