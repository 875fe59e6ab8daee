#include "initiator/scsi/mode_pages.h"

#include <algorithm>

#include "base/byte_order.h"

namespace iscsi_blkback {
namespace {

unsigned mode_byte(std::span<const std::byte> bytes, std::size_t at) {
  return std::to_integer<unsigned>(bytes[at]);
}

// whole: pages are all that the target has.
ModeData mode_data(unsigned device_specific, std::span<const std::byte> pages, bool whole) {
  ModeData data;
  data.caching_cut_off = !whole;
  data.write_protected = (device_specific & 0x80) != 0;
  data.force_unit_access = (device_specific & 0x10) != 0;
  while (pages.size() >= 2) {
    // A page with the SPF bit has a subpage code and a two-byte length.
    const bool subpage = (mode_byte(pages, 0) & 0x40) != 0;
    const std::size_t header = subpage ? 4 : 2;
    if (pages.size() < header) {
      break;
    }
    const std::size_t length = subpage ? load_be16(pages.data() + 2) : mode_byte(pages, 1);
    if (length > pages.size() - header) {
      break;
    }
    const std::span<const std::byte> page = pages.first(header + length);
    pages = pages.subspan(page.size());
    if (subpage) {
      continue;
    }
    const unsigned code = mode_byte(page, 0) & 0x3f;
    if (code == 0x08 && page.size() >= 3) {
      data.caching_cut_off = false;
      data.caching = {.write_cache = (mode_byte(page, 2) & 0x04) != 0,
                      .read_cache = (mode_byte(page, 2) & 0x01) == 0};
    } else if (code == 0x0a && page.size() >= 6) {
      data.control = {.task_set_type = static_cast<std::uint8_t>(mode_byte(page, 2) >> 5),
                      .software_write_protect = (mode_byte(page, 4) & 0x08) != 0,
                      .task_aborted_status = (mode_byte(page, 5) & 0x40) != 0,
                      .descriptor_sense = (mode_byte(page, 2) & 0x04) != 0};
    }
  }
  return data;
}

// What lies behind header and block descriptors, within what arrived and what the length says.
std::span<const std::byte> mode_pages(std::span<const std::byte> bytes, std::size_t begin,
                                      std::size_t end) {
  end = std::min(end, bytes.size());
  return begin < end ? bytes.subspan(begin, end - begin) : std::span<const std::byte>{};
}

}  // namespace

Result<ModeData> parse_mode_sense6(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) {
    return fail(ErrorCode::protocol, "the MODE SENSE(6) data is cut off");
  }
  const std::size_t end = 1 + mode_byte(bytes, 0);
  if (end < 4) {
    return fail(ErrorCode::protocol, "the MODE SENSE(6) data have no header");
  }
  return mode_data(mode_byte(bytes, 2), mode_pages(bytes, 4 + mode_byte(bytes, 3), end),
                   end <= bytes.size());
}

Result<ModeData> parse_mode_sense10(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) {
    return fail(ErrorCode::protocol, "the MODE SENSE(10) data is cut off");
  }
  const std::size_t end = 2U + load_be16(bytes.data());
  if (end < 8) {
    return fail(ErrorCode::protocol, "the MODE SENSE(10) data have no header");
  }
  return mode_data(mode_byte(bytes, 3), mode_pages(bytes, 8U + load_be16(bytes.data() + 6), end),
                   end <= bytes.size());
}

}  // namespace iscsi_blkback
