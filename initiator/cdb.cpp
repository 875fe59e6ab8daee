#include "initiator/cdb.h"

#include <concepts>
#include <cstddef>

namespace iscsi_blkback {
namespace {

template <std::unsigned_integral Number>
void put(Cdb& cdb, std::size_t at, Number value) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    cdb[at + i] = static_cast<std::uint8_t>(value >> (8 * (sizeof(Number) - 1 - i)));
  }
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

Cdb synchronize_cache10_cdb() {
  return block_command10(scsi_operation::kSynchronizeCache10, 0, 0);
}

Cdb synchronize_cache16_cdb() {
  return block_command16(scsi_operation::kSynchronizeCache16, 0, 0);
}

}  // namespace iscsi_blkback
