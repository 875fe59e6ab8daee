// DiscardLimits: how a LUN takes discards, and how much with one command. Values and a pure function.
#pragma once

#include <algorithm>
#include <cstdint>

#include "initiator/lun/logical_unit.h"

namespace iscsi_blkback {

struct DiscardLimits {
  DiscardForm form = DiscardForm::none;
  std::uint32_t most_sectors = 0;         // 0: no discards
  std::uint32_t granularity_sectors = 1;  // what the LUN deallocates as a whole
  std::uint32_t alignment_sectors = 0;    // of the first whole unit; less than the granularity

  // Of sector_count sectors from sector on, those of the next command: as many as the LUN takes, but
  // no unit in two parts, of which it would deallocate neither.
  [[nodiscard]] std::uint32_t next(std::uint64_t sector, std::uint32_t sector_count) const {
    if (sector_count <= most_sectors) {
      return sector_count;
    }
    const std::uint64_t end = sector + most_sectors + granularity_sectors - alignment_sectors;
    const auto beyond = static_cast<std::uint32_t>(end % granularity_sectors);
    return beyond < most_sectors ? most_sectors - beyond : most_sectors;
  }
};

}  // namespace iscsi_blkback
