#include "initiator/scsi/vendor_pages.h"

#include <algorithm>
#include <string_view>

#include "base/byte_order.h"

namespace iscsi_blkback {
namespace {

using Bytes = std::span<const std::byte>;

// Vendors use the same page codes for different things: only with the right name in it is it ours.
bool has_name(Bytes bytes, std::string_view name) {
  for (std::size_t index = 0; index < name.size(); ++index) {
    if (static_cast<char>(load_u8(&bytes[4 + index])) != name[index]) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<RdacVolumeAccess> parse_rdac_volume_access(Bytes bytes) {
  if (bytes.size() < 10 || load_u8(&bytes[1]) != 0xc9 || !has_name(bytes, "vac")) {
    return fail(ErrorCode::protocol, "VPD page 0xc9 is not a volume access control page");
  }
  const unsigned flags = load_u8(&bytes[8]);
  RdacVolumeAccess access;
  access.owned = (flags & 0x01) != 0;
  access.shared = (flags & 0x20) != 0;
  access.automatic_transfer = (flags & 0x80) != 0;
  access.preference = load_u8(&bytes[9]) & 0x0f;
  if ((flags & 0x10) != 0 && bytes.size() >= 14) {
    access.state = static_cast<AccessState>(load_u8(&bytes[10]) & 0x0f);
    access.other_state = static_cast<AccessState>(load_u8(&bytes[12]) & 0x0f);
  }
  return access;
}

Result<std::uint8_t> parse_rdac_max_lun(Bytes bytes) {
  if (bytes.size() < 16 || load_u8(&bytes[1]) != 0xc2 || !has_name(bytes, "swr")) {
    return fail(ErrorCode::protocol, "VPD page 0xc2 is not a software version page");
  }
  return load_u8(&bytes[15]);
}

Result<EmcUnitPath> parse_emc_unit_path(Bytes bytes) {
  if (bytes.size() < 10 || load_u8(&bytes[1]) != 0xc0 || load_u8(&bytes[9]) != 0) {
    return fail(ErrorCode::protocol, "VPD page 0xc0 is not a unit path report page");
  }
  return EmcUnitPath{.lun_state = load_u8(&bytes[4]),
                     .default_owner = load_u8(&bytes[5]) == load_u8(&bytes[8])};
}

void encode_rdac_take_over(std::uint8_t lun, bool long_form, std::span<std::byte> list) {
  constexpr auto kTransferLuns = std::byte{0x02};
  constexpr auto kQuiescenceSeconds = std::byte{20};
  constexpr auto kForcedQuiescence = std::byte{0x02};
  constexpr auto kTakeOver = std::byte{0x81};
  const std::size_t bytes = long_form ? kRdacLongListBytes : kRdacShortListBytes;
  ISCSI_BLKBACK_ASSERT(list.size() >= bytes && (long_form || lun < kRdacShortLuns));
  list = list.first(bytes);
  std::fill(list.begin(), list.end(), std::byte{0});
  const std::size_t page = long_form ? 8 : 4;  // behind the mode parameter header
  std::size_t common = page;
  if (long_form) {
    list[page] = std::byte{0x2c | 0x40};
    list[page + 1] = std::byte{0x01};
    store_be16(list.data() + page + 2, static_cast<std::uint16_t>(bytes - page - 4));
    common += 4;
  } else {
    list[page] = std::byte{0x2c};
    list[page + 1] = static_cast<std::byte>(bytes - page - 2);
    common += 2;
  }
  // Serial numbers of both controllers (2 * 16), which are not ours to change; then the modes.
  list[common + 33] = kTransferLuns;
  list[common + 36] = kQuiescenceSeconds;
  list[common + 37] = kForcedQuiescence;
  list[common + 38 + lun] = kTakeOver;
}

}  // namespace iscsi_blkback
