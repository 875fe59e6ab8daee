#include "initiator/scsi/lun_address.h"

#include <fmt/format.h>

#include "base/result.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kFlat = std::uint64_t{1} << 62;
constexpr std::uint64_t kExtendedFlat = std::uint64_t{0xd2} << 56;  // 24 bits in bytes 1 to 3

}  // namespace

std::uint64_t encode_lun(std::uint32_t number) {
  ISCSI_BLKBACK_ASSERT(number <= kMaxLunNumber);
  if (number < 256) {
    return std::uint64_t{number} << 48;
  }
  if (number < 16384) {
    return kFlat | std::uint64_t{number} << 48;
  }
  return kExtendedFlat | std::uint64_t{number} << 32;
}

std::optional<std::uint32_t> decode_lun(std::uint64_t lun) {
  const std::uint64_t below_first_level = lun & 0xffffffffffff;
  switch (lun >> 62) {
    case 0:  // peripheral; a bus other than 0 leads elsewhere
      if ((lun >> 56) == 0 && below_first_level == 0) {
        return static_cast<std::uint32_t>(lun >> 48);
      }
      return std::nullopt;
    case 1:
      if (below_first_level == 0) {
        return static_cast<std::uint32_t>(lun >> 48 & 0x3fff);
      }
      return std::nullopt;
    case 3:
      if ((lun >> 56) == (kExtendedFlat >> 56) && (lun & 0xffffffff) == 0) {
        return static_cast<std::uint32_t>(lun >> 32 & kMaxLunNumber);
      }
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

std::string lun_text(std::uint64_t lun) {
  const std::optional<std::uint32_t> number = decode_lun(lun);
  return number ? fmt::format("{}", *number) : fmt::format("0x{:016x}", lun);
}

}  // namespace iscsi_blkback
