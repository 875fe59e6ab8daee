#include "tests/support/target_answer.h"

#include <algorithm>

#include "base/byte_order.h"

namespace iscsi_blkback {

std::vector<std::byte> sense_segment(std::span<const std::byte> sense) {
  std::vector<std::byte> segment(2 + sense.size());
  store_be16(segment.data(), static_cast<std::uint16_t>(sense.size()));
  std::copy(sense.begin(), sense.end(), segment.begin() + 2);
  return segment;
}

}  // namespace iscsi_blkback
