#include "initiator/scsi/cdb.h"

#include <cstddef>
#include <span>

#include "base/byte_order.h"
#include "base/result.h"

namespace iscsi_blkback {
namespace {

void put(Cdb& cdb, std::size_t at, std::uint16_t value) {
  store_be16(std::as_writable_bytes(std::span{cdb}).data() + at, value);
}
void put(Cdb& cdb, std::size_t at, std::uint32_t value) {
  store_be32(std::as_writable_bytes(std::span{cdb}).data() + at, value);
}
void put(Cdb& cdb, std::size_t at, std::uint64_t value) {
  store_be64(std::as_writable_bytes(std::span{cdb}).data() + at, value);
}

Cdb with_operation(std::uint8_t operation) {
  Cdb cdb{};
  cdb[0] = operation;
  return cdb;
}

Cdb block_command10(std::uint8_t operation, std::uint32_t block, std::uint16_t block_count) {
  Cdb cdb = with_operation(operation);
  put(cdb, 2, block);
  put(cdb, 7, block_count);
  return cdb;
}

Cdb block_command16(std::uint8_t operation, std::uint64_t block, std::uint32_t block_count) {
  Cdb cdb = with_operation(operation);
  put(cdb, 2, block);
  put(cdb, 10, block_count);
  return cdb;
}

}  // namespace

Cdb test_unit_ready_cdb() {
  return with_operation(scsi_operation::kTestUnitReady);
}

Cdb inquiry_cdb(int page, std::uint16_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kInquiry);
  if (page >= 0) {
    cdb[1] = 0x01;  // EVPD
    cdb[2] = static_cast<std::uint8_t>(page);
  }
  put(cdb, 3, allocation_bytes);
  return cdb;
}

Cdb mode_sense6_cdb(std::uint8_t page, std::uint8_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kModeSense6);
  cdb[1] = 0x08;  // DBD: no block descriptors
  cdb[2] = page;
  cdb[4] = allocation_bytes;
  return cdb;
}

Cdb mode_sense10_cdb(std::uint8_t page, std::uint16_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kModeSense10);
  cdb[1] = 0x08;  // DBD
  cdb[2] = page;
  put(cdb, 7, allocation_bytes);
  return cdb;
}

Cdb mode_select6_cdb(std::uint8_t list_bytes) {
  Cdb cdb = with_operation(scsi_operation::kModeSelect6);
  cdb[4] = list_bytes;
  return cdb;
}

Cdb mode_select10_cdb(std::uint16_t list_bytes) {
  Cdb cdb = with_operation(scsi_operation::kModeSelect10);
  put(cdb, 7, list_bytes);
  return cdb;
}

Cdb read_capacity10_cdb() {
  return with_operation(scsi_operation::kReadCapacity10);
}

Cdb read_capacity16_cdb(std::uint32_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kServiceActionIn16);
  cdb[1] = kReadCapacity16Action;
  put(cdb, 10, allocation_bytes);
  return cdb;
}

Cdb report_luns_cdb(std::uint32_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kReportLuns);
  put(cdb, 6, allocation_bytes);
  return cdb;
}

Cdb read10_cdb(std::uint32_t block, std::uint16_t block_count) {
  return block_command10(scsi_operation::kRead10, block, block_count);
}

Cdb write10_cdb(std::uint32_t block, std::uint16_t block_count) {
  return block_command10(scsi_operation::kWrite10, block, block_count);
}

Cdb read16_cdb(std::uint64_t block, std::uint32_t block_count) {
  return block_command16(scsi_operation::kRead16, block, block_count);
}

Cdb write16_cdb(std::uint64_t block, std::uint32_t block_count) {
  return block_command16(scsi_operation::kWrite16, block, block_count);
}

Cdb synchronize_cache10_cdb(std::uint32_t block, std::uint16_t block_count) {
  return block_command10(scsi_operation::kSynchronizeCache10, block, block_count);
}

Cdb synchronize_cache16_cdb(std::uint64_t block, std::uint32_t block_count) {
  return block_command16(scsi_operation::kSynchronizeCache16, block, block_count);
}

void begin_unmap_list(std::size_t ranges, std::span<std::byte> list) {
  ISCSI_BLKBACK_ASSERT(ranges <= kMaxUnmapRanges && list.size() >= unmap_list_bytes(ranges));
  // SBC-3 5.28.2: two lengths, neither of which counts itself, then the descriptors.
  const std::size_t bytes = unmap_list_bytes(ranges);
  store_be16(list.data(), static_cast<std::uint16_t>(bytes - 2));
  store_be16(list.data() + 2, static_cast<std::uint16_t>(bytes - 8));
  store_be32(list.data() + 4, 0);
}

void put_unmap_range(BlockRange range, std::size_t index, std::span<std::byte> list) {
  ISCSI_BLKBACK_ASSERT(list.size() >= unmap_list_bytes(index + 1));
  std::byte* descriptor = list.data() + unmap_list_bytes(index);
  store_be64(descriptor, range.block);
  store_be32(descriptor + 8, range.block_count);
  store_be32(descriptor + 12, 0);
}

Cdb unmap_cdb(std::uint16_t list_bytes) {
  Cdb cdb = with_operation(scsi_operation::kUnmap);
  put(cdb, 7, list_bytes);
  return cdb;
}

Cdb write_same16_cdb(std::uint64_t block, std::uint32_t block_count, bool unmap) {
  Cdb cdb = block_command16(scsi_operation::kWriteSame16, block, block_count);
  cdb[1] = unmap ? 0x08 : 0x00;
  return cdb;
}

Cdb report_target_port_groups_cdb(std::uint32_t allocation_bytes, bool extended) {
  Cdb cdb = with_operation(scsi_operation::kMaintenanceIn);
  cdb[1] = static_cast<std::uint8_t>(kTargetPortGroupsAction | (extended ? 0x20 : 0x00));
  put(cdb, 6, allocation_bytes);
  return cdb;
}

Cdb set_target_port_groups_cdb(std::uint32_t list_bytes) {
  Cdb cdb = with_operation(scsi_operation::kMaintenanceOut);
  cdb[1] = kTargetPortGroupsAction;
  put(cdb, 6, list_bytes);
  return cdb;
}

Cdb persistent_reserve_in_cdb(std::uint8_t action, std::uint16_t allocation_bytes) {
  Cdb cdb = with_operation(scsi_operation::kPersistentReserveIn);
  cdb[1] = static_cast<std::uint8_t>(action & 0x1f);
  put(cdb, 7, allocation_bytes);
  return cdb;
}

Cdb persistent_reserve_out_cdb(std::uint8_t action, std::uint8_t type, std::uint32_t list_bytes) {
  Cdb cdb = with_operation(scsi_operation::kPersistentReserveOut);
  cdb[1] = static_cast<std::uint8_t>(action & 0x1f);
  cdb[2] = static_cast<std::uint8_t>(type & 0x0f);  // scope 0: the logical unit
  put(cdb, 5, list_bytes);
  return cdb;
}

}  // namespace iscsi_blkback
