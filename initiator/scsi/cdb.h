// The command descriptor blocks that the initiator sends (SPC-4, SBC-3), and the parameter list of
// UNMAP. Pure functions; a CDB is padded with zeros to the 16 bytes of a SCSI Command PDU. Blocks
// are logical blocks of the LUN.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace iscsi_blkback {

using Cdb = std::array<std::uint8_t, 16>;

namespace scsi_operation {
inline constexpr std::uint8_t kTestUnitReady = 0x00;
inline constexpr std::uint8_t kInquiry = 0x12;
inline constexpr std::uint8_t kModeSelect6 = 0x15;
inline constexpr std::uint8_t kModeSense6 = 0x1a;
inline constexpr std::uint8_t kReadCapacity10 = 0x25;
inline constexpr std::uint8_t kRead10 = 0x28;
inline constexpr std::uint8_t kWrite10 = 0x2a;
inline constexpr std::uint8_t kSynchronizeCache10 = 0x35;
inline constexpr std::uint8_t kUnmap = 0x42;
inline constexpr std::uint8_t kModeSelect10 = 0x55;
inline constexpr std::uint8_t kModeSense10 = 0x5a;
inline constexpr std::uint8_t kPersistentReserveIn = 0x5e;
inline constexpr std::uint8_t kPersistentReserveOut = 0x5f;
inline constexpr std::uint8_t kRead16 = 0x88;
inline constexpr std::uint8_t kWrite16 = 0x8a;
inline constexpr std::uint8_t kSynchronizeCache16 = 0x91;
inline constexpr std::uint8_t kWriteSame16 = 0x93;
inline constexpr std::uint8_t kServiceActionIn16 = 0x9e;
inline constexpr std::uint8_t kReportLuns = 0xa0;
inline constexpr std::uint8_t kMaintenanceIn = 0xa3;
inline constexpr std::uint8_t kMaintenanceOut = 0xa4;
}  // namespace scsi_operation

// Service actions.
inline constexpr std::uint8_t kReadCapacity16Action = 0x10;
inline constexpr std::uint8_t kTargetPortGroupsAction = 0x0a;  // of MAINTENANCE IN and OUT

[[nodiscard]] Cdb test_unit_ready_cdb();
// page: of vital product data, or none (-1) for standard INQUIRY data.
[[nodiscard]] Cdb inquiry_cdb(int page, std::uint16_t allocation_bytes);
// Current values, without block descriptors. page 0x3f: all.
[[nodiscard]] Cdb mode_sense6_cdb(std::uint8_t page, std::uint8_t allocation_bytes);
[[nodiscard]] Cdb mode_sense10_cdb(std::uint8_t page, std::uint16_t allocation_bytes);
// Vendor-specific pages (PF 0), not saved.
[[nodiscard]] Cdb mode_select6_cdb(std::uint8_t list_bytes);
[[nodiscard]] Cdb mode_select10_cdb(std::uint16_t list_bytes);
[[nodiscard]] Cdb read_capacity10_cdb();
[[nodiscard]] Cdb read_capacity16_cdb(std::uint32_t allocation_bytes);
[[nodiscard]] Cdb report_luns_cdb(std::uint32_t allocation_bytes);

[[nodiscard]] Cdb read10_cdb(std::uint32_t block, std::uint16_t block_count);
[[nodiscard]] Cdb write10_cdb(std::uint32_t block, std::uint16_t block_count);
[[nodiscard]] Cdb read16_cdb(std::uint64_t block, std::uint32_t block_count);
[[nodiscard]] Cdb write16_cdb(std::uint64_t block, std::uint32_t block_count);
// block_count 0: from block to the end. The answer comes only when it is done (IMMED 0).
[[nodiscard]] Cdb synchronize_cache10_cdb(std::uint32_t block = 0, std::uint16_t block_count = 0);
[[nodiscard]] Cdb synchronize_cache16_cdb(std::uint64_t block = 0, std::uint32_t block_count = 0);

struct BlockRange {
  std::uint64_t block = 0;
  std::uint32_t block_count = 0;
};
// What UNMAP's parameter list needs, and the list; its two-byte lengths bound the number of ranges.
inline constexpr std::size_t kMaxUnmapRanges = 4095;
[[nodiscard]] constexpr std::size_t unmap_list_bytes(std::size_t ranges) {
  return 8 + ranges * 16;
}
void begin_unmap_list(std::size_t ranges, std::span<std::byte> list);
void put_unmap_range(BlockRange range, std::size_t index, std::span<std::byte> list);
[[nodiscard]] Cdb unmap_cdb(std::uint16_t list_bytes);

// WRITE SAME of the one block in the data buffer. unmap: the target may deallocate the blocks if
// they then read as that block (zeros).
[[nodiscard]] Cdb write_same16_cdb(std::uint64_t block, std::uint32_t block_count, bool unmap);

// extended: with the extended header, which tells the implicit transition time (SPC-4 6.37).
[[nodiscard]] Cdb report_target_port_groups_cdb(std::uint32_t allocation_bytes, bool extended);
[[nodiscard]] Cdb set_target_port_groups_cdb(std::uint32_t list_bytes);

// action: of PERSISTENT RESERVE IN and OUT; see persistent_reservation.h.
[[nodiscard]] Cdb persistent_reserve_in_cdb(std::uint8_t action, std::uint16_t allocation_bytes);
[[nodiscard]] Cdb persistent_reserve_out_cdb(std::uint8_t action, std::uint8_t type,
                                             std::uint32_t list_bytes);

}  // namespace iscsi_blkback
