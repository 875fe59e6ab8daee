// The 8-byte LUN of SAM-5 4.7, as a big-endian number, and the number that an operator knows a LUN
// by. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace iscsi_blkback {

inline constexpr std::uint32_t kMaxLunNumber = 0xffffff;

// Peripheral addressing below 256, flat space addressing up to 16383, extended flat space
// addressing up to kMaxLunNumber.
[[nodiscard]] std::uint64_t encode_lun(std::uint32_t number);

// The number, whichever of the three methods the target chose for it; nothing for what has none: a
// LUN behind another bus or target (peripheral with a bus, logical unit addressing), a well-known
// one, several levels, reserved methods.
[[nodiscard]] std::optional<std::uint32_t> decode_lun(std::uint64_t lun);

// "7", or all 16 hexadecimal digits when it has no number.
[[nodiscard]] std::string lun_text(std::uint64_t lun);

}  // namespace iscsi_blkback
