// What of a request goes to a path with one command, and what of it is unfenced when that command is
// lost. Pure functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "multipath/requests/discard_limits.h"
#include "multipath/requests/request.h"

namespace iscsi_blkback {

// Makes of `piece` what comes after done_sectors of the whole: as much as the LUN takes at once.
inline void cut_piece(const BlockRequest& whole, std::uint32_t done_sectors,
                      std::uint32_t most_sectors, const DiscardLimits& discards,
                      BlockRequest& piece) {
  piece.operation = whole.operation;
  piece.sector = whole.sector + done_sectors;
  const std::uint32_t left = whole.sector_count - done_sectors;
  if (whole.operation == BlockOperation::discard) {
    piece.sector_count = discards.next(piece.sector, left);
  } else {
    piece.sector_count = std::min(most_sectors, left);
    piece.data = whole.data + std::size_t{done_sectors} * kSectorBytes;
  }
}

struct UnfencedSectors {
  std::uint64_t first = 0;
  std::uint64_t end = 0;  // one past the last
};

// Of a write that goes in pieces, all of it: it is short. Of a discard, which may be most of the
// disk, what was sent.
[[nodiscard]] inline UnfencedSectors unfenced_sectors(const Request& lost) {
  if (!lost.is_discard()) {
    return {lost.first_sector(), lost.end_sector()};
  }
  const std::uint64_t first = lost.first_sector() + lost.done_sectors;
  return {first, first + lost.sent_sectors};
}

}  // namespace iscsi_blkback
