#include "initiator/logical_unit.h"

#include "initiator/cdb.h"
#include "initiator/identification.h"

namespace iscsi_blkback {

LogicalUnit::LogicalUnit(Reactor& reactor, Session& session, std::uint64_t lun)
    : reactor_(reactor), session_(session), lun_(lun) {}

LogicalUnit::~LogicalUnit() {
  ISCSI_BLKBACK_ASSERT(!identification_);
}

Session& LogicalUnit::session() {
  return session_;
}
std::uint64_t LogicalUnit::lun() const {
  return lun_;
}

void LogicalUnit::identify(Identified on_done, void* owner) {
  ISCSI_BLKBACK_ASSERT(!identification_);
  identification_ = std::make_unique<Identification>(reactor_, *this, on_done, owner);
  identification_->begin();
}

void LogicalUnit::cancel_identify() {
  if (identification_ && identification_->abandon()) {
    static_cast<void>(identification_.release());  // deletes itself
  }
  identification_.reset();
}

void LogicalUnit::prepare_io(ScsiTask& task, const BlockRequest& request) const {
  task.lun = lun_;
  task.data = request.data;
  task.data_length_bytes = static_cast<std::uint32_t>(request.length_bytes());
  const std::uint32_t sectors_per_block = logical_block_bytes_ / kSectorBytes;
  const std::uint64_t block = request.sector / sectors_per_block;
  const std::uint32_t count = request.sector_count / sectors_per_block;
  // Without the 16-byte commands the LUN has below 2^32 blocks, and a transfer of more than 65535
  // blocks cannot be asked for: geometry().max_transfer_sectors says so.
  const auto block32 = static_cast<std::uint32_t>(block);
  const auto count16 = static_cast<std::uint16_t>(count);
  switch (request.operation) {
    case BlockOperation::read:
      task.direction = DataDirection::in;
      task.cdb = has_16_byte_commands_ ? read16_cdb(block, count) : read10_cdb(block32, count16);
      return;
    case BlockOperation::write:
      task.direction = DataDirection::out;
      task.cdb = has_16_byte_commands_ ? write16_cdb(block, count) : write10_cdb(block32, count16);
      return;
    case BlockOperation::flush:
      task.direction = DataDirection::none;
      task.data = nullptr;
      task.data_length_bytes = 0;
      task.cdb = has_16_byte_commands_ ? synchronize_cache16_cdb() : synchronize_cache10_cdb();
      return;
  }
}

void LogicalUnit::prepare_test_unit_ready(ScsiTask& task) const {
  task.lun = lun_;
  task.direction = DataDirection::none;
  task.data = nullptr;
  task.data_length_bytes = 0;
  task.cdb = test_unit_ready_cdb();
}

std::uint64_t encode_lun(std::uint16_t number) {
  const std::uint64_t field =
      number < 256 ? number : static_cast<std::uint64_t>(number & 0x3fff) | 0x4000;
  return field << 48;
}

}  // namespace iscsi_blkback
