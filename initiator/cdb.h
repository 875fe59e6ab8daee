// The command descriptor blocks that the initiator sends (SPC-4, SBC-3). Pure functions; the result
// is padded with zeros to the 16 bytes of a SCSI Command PDU.
#pragma once

#include <array>
#include <cstdint>

namespace iscsi_blkback {

using Cdb = std::array<std::uint8_t, 16>;

namespace scsi_operation {
inline constexpr std::uint8_t kTestUnitReady = 0x00;
inline constexpr std::uint8_t kInquiry = 0x12;
inline constexpr std::uint8_t kModeSense6 = 0x1a;
inline constexpr std::uint8_t kReadCapacity10 = 0x25;
inline constexpr std::uint8_t kRead10 = 0x28;
inline constexpr std::uint8_t kWrite10 = 0x2a;
inline constexpr std::uint8_t kSynchronizeCache10 = 0x35;
inline constexpr std::uint8_t kRead16 = 0x88;
inline constexpr std::uint8_t kWrite16 = 0x8a;
inline constexpr std::uint8_t kSynchronizeCache16 = 0x91;
inline constexpr std::uint8_t kServiceActionIn16 = 0x9e;
inline constexpr std::uint8_t kReportLuns = 0xa0;
}  // namespace scsi_operation

inline constexpr std::uint8_t kReadCapacity16Action = 0x10;

[[nodiscard]] Cdb test_unit_ready_cdb();
// page: of vital product data, or none (-1) for standard INQUIRY data.
[[nodiscard]] Cdb inquiry_cdb(int page, std::uint16_t allocation_bytes);
[[nodiscard]] Cdb mode_sense6_cdb(std::uint8_t page, std::uint8_t allocation_bytes);
[[nodiscard]] Cdb read_capacity10_cdb();
[[nodiscard]] Cdb read_capacity16_cdb(std::uint32_t allocation_bytes);
[[nodiscard]] Cdb report_luns_cdb(std::uint32_t allocation_bytes);
[[nodiscard]] Cdb read10_cdb(std::uint32_t block, std::uint16_t block_count);
[[nodiscard]] Cdb write10_cdb(std::uint32_t block, std::uint16_t block_count);
[[nodiscard]] Cdb read16_cdb(std::uint64_t block, std::uint32_t block_count);
[[nodiscard]] Cdb write16_cdb(std::uint64_t block, std::uint32_t block_count);
// The whole logical unit, with the answer only when it is done (IMMED 0).
[[nodiscard]] Cdb synchronize_cache10_cdb();
[[nodiscard]] Cdb synchronize_cache16_cdb();

}  // namespace iscsi_blkback
