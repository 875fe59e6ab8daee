// What a LUN answers when it is asked who it is: INQUIRY, vital product data pages, READ CAPACITY
// and REPORT LUNS, parsed with bounds. Pure functions: bytes is what really arrived, and every
// length inside it is checked against that. Errors, of all of them: protocol, what arrived is cut off,
// another page or impossible; unsupported, blocks of a size that no disk can have here, or a LUN that
// READ CAPACITY(10) cannot tell the size of. The message is one sentence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "initiator/scsi/lun_names.h"

namespace iscsi_blkback {

struct InquiryData {
  std::uint8_t peripheral_qualifier = 0;
  std::uint8_t device_type = 0;  // 0: direct access
  std::uint8_t tpgs = 0;
  std::string vendor;  // see printable_identity(); blanks at the end removed
  std::string product;
  std::string revision;
  std::string vendor_bytes;   // 8, as they came
  std::string product_bytes;  // 16
};
[[nodiscard]] Result<InquiryData> parse_inquiry(std::span<const std::byte> bytes);

// The codes of the pages that the LUN has (page 0x00).
[[nodiscard]] Result<std::vector<std::uint8_t>> parse_supported_pages(
    std::span<const std::byte> bytes);

// Page 0x80: the unit serial number, without blanks around it or padding; see printable_identity().
[[nodiscard]] Result<std::string> parse_unit_serial_number(std::span<const std::byte> bytes);

// Page 0x83: the designators of the logical unit, in order; those of ports and of the target are
// left out, and one that is cut off, as a part of it would be another name. A page of the form
// before SPC-3, which is nothing but the identifier, is one NAA designator.
[[nodiscard]] Result<std::vector<Designator>> parse_designators(std::span<const std::byte> bytes);

// Page 0x83 again: the target port that it was read through.
struct TargetPortIds {
  std::optional<std::uint16_t> relative_port = {};
  std::optional<std::uint16_t> target_port_group = {};
};
[[nodiscard]] TargetPortIds parse_target_port_ids(std::span<const std::byte> bytes);

// All in logical blocks; 0: not told, or not limited.
struct BlockLimits {
  std::uint32_t max_transfer_blocks = 0;
  std::uint32_t optimal_transfer_blocks = 0;
  std::uint32_t max_unmap_blocks =
      0;  // of one UNMAP; 0: the LUN has no UNMAP. 0xffffffff: no limit
  std::uint32_t max_unmap_ranges = 0;
  std::uint32_t unmap_granularity_blocks = 0;
  std::uint32_t unmap_alignment_blocks = 0;  // of the first whole unit
  std::uint64_t max_write_same_blocks = 0;
};
[[nodiscard]] Result<BlockLimits> parse_block_limits(std::span<const std::byte> bytes);  // 0xB0

struct BlockCharacteristics {
  std::uint16_t rotation_rate = 0;  // 1: not rotating; 0: not reported
};
[[nodiscard]] Result<BlockCharacteristics> parse_block_characteristics(
    std::span<const std::byte> bytes);  // 0xB1

struct LogicalBlockProvisioning {
  bool unmap = false;                  // LBPU: UNMAP
  bool write_same_unmap = false;       // LBPWS: WRITE SAME(16) with the UNMAP bit
  bool reads_zeros = false;            // LBPRZ: an unmapped block reads as zeros
  std::uint8_t provisioning_type = 0;  // 2: thin
};
[[nodiscard]] Result<LogicalBlockProvisioning> parse_logical_block_provisioning(
    std::span<const std::byte> bytes);  // 0xB2

struct Capacity {
  std::uint64_t block_count = 0;
  std::uint32_t logical_block_bytes = 0;  // a power of two, 512..4096
  std::uint32_t physical_block_bytes = 0;
  bool thin_provisioned = false;  // LBPME
  bool reads_zeros = false;       // LBPRZ, for LUNs without page 0xB2
};
[[nodiscard]] Result<Capacity> parse_read_capacity10(std::span<const std::byte> bytes);
[[nodiscard]] Result<Capacity> parse_read_capacity16(std::span<const std::byte> bytes);

// REPORT LUNS: each as the 8-byte LUN. Those that did not fit into bytes are left out.
[[nodiscard]] Result<std::vector<std::uint64_t>> parse_report_luns(
    std::span<const std::byte> bytes);

}  // namespace iscsi_blkback
