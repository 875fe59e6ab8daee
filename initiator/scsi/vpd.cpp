#include "initiator/scsi/vpd.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "base/printable_text.h"

namespace iscsi_blkback {
namespace {

using Bytes = std::span<const std::byte>;

// Text of a target's without its padding, safe to print, and other than the text of any other
// bytes, so that LUNs can be told apart by it.
std::string text_of(Bytes bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return printable_identity(text.substr(0, text.find_last_not_of(std::string_view("\0 ", 2)) + 1));
}

std::string without_leading_blanks(std::string text) {
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  return text;
}

std::string string_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The part of a VPD page after its 4-byte header, no longer than the page says and than what
// arrived.
Result<Bytes> page_body(Bytes bytes, std::uint8_t page) {
  if (bytes.size() < 4) {
    return fail(ErrorCode::protocol, fmt::format("VPD page 0x{:02x} is cut off", page));
  }
  if (load_u8(&bytes[1]) != page) {
    return fail(ErrorCode::protocol,
                fmt::format("asked for VPD page 0x{:02x}, the LUN sent page 0x{:02x}", page,
                            load_u8(&bytes[1])));
  }
  const std::size_t length = load_be16(bytes.data() + 2);
  return bytes.subspan(4, std::min(length, bytes.size() - 4));
}

// The page before SPC-3. The third byte of a designator is reserved; there, it is a part of an IEEE
// company id. As scsi_id sees it, but for the length.
bool is_bare_naa(Bytes body) {
  if ((body.size() != 8 && body.size() != 16) || load_u8(&body[2]) == 0) {
    return false;
  }
  const unsigned form = load_u8(&body[0]) >> 4;
  return body.size() == 16 ? form == 6 : form == 2 || form == 3 || form == 5;
}

Result<Capacity> checked(Capacity capacity) {
  const std::uint32_t block = capacity.logical_block_bytes;
  if (block < 512 || block > 4096 || (block & (block - 1)) != 0) {
    return fail(ErrorCode::unsupported,
                fmt::format("the LUN has logical blocks of {} bytes; 512, 1024, 2048 and 4096 are "
                            "supported",
                            block));
  }
  // Sectors of 512 bytes must be countable, and their byte offsets too.
  if (capacity.block_count == 0 || capacity.block_count > (std::uint64_t{1} << 63) / block) {
    return fail(ErrorCode::protocol, "the LUN reports an impossible capacity");
  }
  return capacity;
}

}  // namespace

Result<InquiryData> parse_inquiry(Bytes bytes) {
  if (bytes.size() < 36) {
    return fail(ErrorCode::protocol, "the INQUIRY data is cut off");
  }
  InquiryData data;
  data.peripheral_qualifier = static_cast<std::uint8_t>(load_u8(&bytes[0]) >> 5);
  data.device_type = load_u8(&bytes[0]) & 0x1f;
  data.tpgs = static_cast<std::uint8_t>(load_u8(&bytes[5]) >> 4 & 3);
  data.vendor = text_of(bytes.subspan(8, 8));
  data.product = text_of(bytes.subspan(16, 16));
  data.revision = text_of(bytes.subspan(32, 4));
  data.vendor_bytes = string_of(bytes.subspan(8, 8));
  data.product_bytes = string_of(bytes.subspan(16, 16));
  return data;
}

Result<std::vector<std::uint8_t>> parse_supported_pages(Bytes bytes) {
  const Result<Bytes> body = page_body(bytes, 0x00);
  if (!body) {
    return tl::unexpected(body.error());
  }
  std::vector<std::uint8_t> pages;
  for (const std::byte page : *body) {
    pages.push_back(std::to_integer<std::uint8_t>(page));
  }
  return pages;
}

Result<std::string> parse_unit_serial_number(Bytes bytes) {
  return page_body(bytes, 0x80).map([](Bytes body) {
    return without_leading_blanks(text_of(body));
  });
}

Result<std::vector<Designator>> parse_designators(Bytes bytes) {
  const Result<Bytes> body = page_body(bytes, 0x83);
  if (!body) {
    return tl::unexpected(body.error());
  }
  std::vector<Designator> designators;
  if (is_bare_naa(*body)) {
    designators.push_back({.code_set = 1, .type = 3, .bytes = string_of(*body)});
    return designators;
  }
  Bytes rest = *body;
  while (rest.size() >= 4 && load_u8(&rest[3]) <= rest.size() - 4) {
    const std::size_t length = load_u8(&rest[3]);
    if ((load_u8(&rest[1]) >> 4 & 3) == 0) {
      designators.push_back({.code_set = static_cast<std::uint8_t>(load_u8(&rest[0]) & 0x0f),
                             .type = static_cast<std::uint8_t>(load_u8(&rest[1]) & 0x0f),
                             .bytes = string_of(rest.subspan(4, length))});
    }
    rest = rest.subspan(4 + length);
  }
  return designators;
}

TargetPortIds parse_target_port_ids(Bytes bytes) {
  TargetPortIds ids;
  Bytes rest = page_body(bytes, 0x83).value_or(Bytes{});
  while (rest.size() >= 4 && load_u8(&rest[3]) <= rest.size() - 4) {
    const std::uint8_t association = load_u8(&rest[1]) >> 4 & 3;
    const std::uint8_t type = load_u8(&rest[1]) & 0x0f;
    const std::size_t length = load_u8(&rest[3]);
    if (association == 1 && length == 4 && type == 4) {
      ids.relative_port = load_be16(rest.data() + 6);
    } else if (association == 1 && length == 4 && type == 5) {
      ids.target_port_group = load_be16(rest.data() + 6);
    }
    rest = rest.subspan(4 + length);
  }
  return ids;
}

Result<BlockLimits> parse_block_limits(Bytes bytes) {
  return page_body(bytes, 0xb0).map([](Bytes body) {
    // Older targets send a shorter page: what is not there is not limited. Offsets are those of the
    // standard's table less the page's header.
    const auto field = [&](std::size_t at) {
      return body.size() >= at + 4 ? load_be32(body.data() + at) : std::uint32_t{0};
    };
    BlockLimits limits;
    limits.max_transfer_blocks = field(4);
    limits.optimal_transfer_blocks = field(8);
    limits.max_unmap_blocks = field(16);
    limits.max_unmap_ranges = field(20);
    limits.unmap_granularity_blocks = field(24);
    const std::uint32_t alignment = field(28);
    limits.unmap_alignment_blocks = (alignment & 0x80000000) != 0 ? alignment & 0x7fffffff : 0;
    limits.max_write_same_blocks = body.size() >= 40 ? load_be64(body.data() + 32) : 0;
    return limits;
  });
}

Result<BlockCharacteristics> parse_block_characteristics(Bytes bytes) {
  return page_body(bytes, 0xb1).map([](Bytes body) {
    return BlockCharacteristics{.rotation_rate =
                                    body.size() >= 2 ? load_be16(body.data()) : std::uint16_t{0}};
  });
}

Result<LogicalBlockProvisioning> parse_logical_block_provisioning(Bytes bytes) {
  return page_body(bytes, 0xb2).map([](Bytes body) {
    LogicalBlockProvisioning provisioning;
    if (body.size() >= 3) {
      provisioning.unmap = (load_u8(&body[1]) & 0x80) != 0;
      provisioning.write_same_unmap = (load_u8(&body[1]) & 0x40) != 0;
      provisioning.reads_zeros = (load_u8(&body[1]) & 0x1c) == 0x04;  // xx1b: zeros
      provisioning.provisioning_type = load_u8(&body[2]) & 0x07;
    }
    return provisioning;
  });
}

Result<Capacity> parse_read_capacity10(Bytes bytes) {
  if (bytes.size() < 8) {
    return fail(ErrorCode::protocol, "the READ CAPACITY(10) data is cut off");
  }
  const std::uint32_t last = load_be32(bytes.data());
  const std::uint32_t block = load_be32(bytes.data() + 4);
  if (last == 0xffffffff) {
    return fail(ErrorCode::unsupported,
                "the LUN is too large for READ CAPACITY(10) and refuses READ CAPACITY(16)");
  }
  return checked({.block_count = std::uint64_t{last} + 1,
                  .logical_block_bytes = block,
                  .physical_block_bytes = block,
                  .thin_provisioned = false,
                  .reads_zeros = false});
}

Result<Capacity> parse_read_capacity16(Bytes bytes) {
  if (bytes.size() < 12) {
    return fail(ErrorCode::protocol, "the READ CAPACITY(16) data is cut off");
  }
  Capacity capacity;
  const std::uint64_t last = load_be64(bytes.data());
  capacity.block_count = last + 1;  // 0 when it wraps, which is refused below
  capacity.logical_block_bytes = load_be32(bytes.data() + 8);
  capacity.physical_block_bytes = capacity.logical_block_bytes;
  if (bytes.size() >= 15) {
    const unsigned exponent = load_u8(&bytes[13]) & 0x0f;
    // More than 1 MiB is a mistake of the target's, and only a hint anyway.
    if (exponent <= 8) {
      capacity.physical_block_bytes = capacity.logical_block_bytes << exponent;
    }
    capacity.thin_provisioned = (load_u8(&bytes[14]) & 0x80) != 0;
    capacity.reads_zeros = (load_u8(&bytes[14]) & 0x40) != 0;
  }
  return checked(capacity);
}

Result<std::vector<std::uint64_t>> parse_report_luns(Bytes bytes) {
  if (bytes.size() < 8) {
    return fail(ErrorCode::protocol, "the REPORT LUNS data is cut off");
  }
  // Such as standard INQUIRY data, whatever their version is.
  if (load_be32(bytes.data()) % 8 != 0) {
    return fail(ErrorCode::protocol, "the REPORT LUNS data is no list of LUNs");
  }
  const std::size_t length = std::min<std::size_t>(load_be32(bytes.data()), bytes.size() - 8);
  std::vector<std::uint64_t> luns;
  for (std::size_t at = 0; at + 8 <= length; at += 8) {
    luns.push_back(load_be64(bytes.data() + 8 + at));
  }
  return luns;
}

}  // namespace iscsi_blkback
