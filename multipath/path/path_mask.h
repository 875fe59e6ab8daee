// PathMask: paths of one disk by their numbers. Bit i stands for path i. A value.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

using PathMask = std::uint64_t;
inline constexpr std::uint32_t kMaxPaths = 64;

[[nodiscard]] constexpr PathMask path_bit(std::uint32_t index) {
  return PathMask{1} << index;
}

}  // namespace iscsi_blkback
