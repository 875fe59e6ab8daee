#include "initiator/lun/logical_unit.h"

#include <algorithm>
#include <bit>

#include "initiator/lun/identification.h"

namespace iscsi_blkback {
namespace {

// Commands that say the same in two forms.
constexpr std::array<std::uint8_t, 6> kForms{
    scsi_operation::kRead10, scsi_operation::kWrite10, scsi_operation::kSynchronizeCache10,
    scsi_operation::kRead16, scsi_operation::kWrite16, scsi_operation::kSynchronizeCache16};

constexpr std::uint64_t kBlocksOf10ByteForms = std::uint64_t{1} << 32;
constexpr std::uint32_t kTransferOf10ByteForms = 0xffff;

// An answer that took so long is remembered, and bounds the patience for further ones.
constexpr std::chrono::seconds kSlowAnswer{1};
constexpr std::chrono::minutes kSlowMemory{10};
constexpr std::chrono::minutes kMostPatience{2};

std::uint8_t form_bit(std::uint8_t operation) {
  const auto* const found = std::find(kForms.begin(), kForms.end(), operation);
  return found == kForms.end() ? std::uint8_t{0}
                               : static_cast<std::uint8_t>(1U << (found - kForms.begin()));
}

std::uint8_t other_form(std::uint8_t operation) {
  constexpr std::size_t kPairs = kForms.size() / 2;
  const auto* const found = std::find(kForms.begin(), kForms.end(), operation);
  ISCSI_BLKBACK_ASSERT(found != kForms.end());
  return kForms[(static_cast<std::size_t>(found - kForms.begin()) + kPairs) % kForms.size()];
}

}  // namespace

const TargetPortGroup* LogicalUnitAccess::group() const {
  const auto found = std::find_if(groups.begin(), groups.end(), [this](const auto& candidate) {
    if (port.target_port_group) {
      return candidate.tag == *port.target_port_group;
    }
    return port.relative_port && std::find(candidate.ports.begin(), candidate.ports.end(),
                                           *port.relative_port) != candidate.ports.end();
  });
  return found == groups.end() ? nullptr : &*found;
}

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
  if (std::exchange(done_without_in_, session_.login_epoch()) != session_.login_epoch()) {
    done_without_ = 0;
  }
  identification_ = std::make_unique<Identification>(reactor_, *this, on_done, owner);
  identification_->begin();
}

void LogicalUnit::read_access(Identified on_done, void* owner, bool serves) {
  ISCSI_BLKBACK_ASSERT(!identification_ && (!serves || tells_access()));
  identification_ = std::make_unique<Identification>(reactor_, *this, on_done, owner);
  identification_->begin_access(access_, serves);
}

void LogicalUnit::start_over() {
  ISCSI_BLKBACK_ASSERT(identification_);
  identification_->start_over();
}

TimePoint LogicalUnit::answered_at() const {
  ISCSI_BLKBACK_ASSERT(identification_);
  return identification_->answered_at();
}

std::string LogicalUnit::question() const {
  ISCSI_BLKBACK_ASSERT(identification_);
  return identification_->question();
}

Duration LogicalUnit::longest_identification(Duration longest_answer) {
  return Identification::longest(longest_answer);
}

Duration LogicalUnit::patience(Duration usual) const {
  const Duration known =
      reactor_.now() < questions_->remembered_until ? 2 * questions_->longest : Duration::zero();
  return std::max(usual, std::min<Duration>(known, kMostPatience));
}

void LogicalUnit::note_question(const ScsiTask& task, Duration took) {
  questions_->note(task, took, reactor_.now());
}

void LogicalUnit::Questions::note(const ScsiTask& task, Duration took, TimePoint now) {
  silences = task.silences;
  if (task.outcome == TaskOutcome::completed && took >= kSlowAnswer) {
    longest = now < remembered_until ? std::max(longest, took) : took;
    remembered_until = now + kSlowMemory;
  }
}

void LogicalUnit::cancel_identify() {
  if (identification_ && identification_->abandon()) {
    static_cast<void>(identification_.release());  // deletes itself
  }
  identification_.reset();
}

bool LogicalUnit::do_without_answer() {
  ISCSI_BLKBACK_ASSERT(identification_);
  const std::uint32_t question = identification_->spare_question();
  if (question == 0) {
    return false;
  }
  done_without_ |= question;
  auto again = identification_->successor();
  cancel_identify();
  identification_ = std::move(again);
  identification_->begin();
  return true;
}

void LogicalUnit::prepare_io(ScsiTask& task, const BlockRequest& request) const {
  task.lun = lun_;
  task.data = request.data;
  task.data_length_bytes = static_cast<std::uint32_t>(request.length_bytes());
  // A shift: logical_block_bytes_ is a power of two, and a division would be the dearest here.
  const int shift = std::countr_zero(logical_block_bytes_ / kSectorBytes);
  const std::uint64_t block = request.sector >> shift;
  const std::uint32_t count = request.sector_count >> shift;
  // Without the 16-byte commands the LUN has below 2^32 blocks, and max_transfer_blocks allows
  // 65535. Where it has them and refuses them, try_other_form() has learned the shorter form only
  // if that can say all addresses; a transfer that it cannot say is refused once more.
  const auto block32 = static_cast<std::uint32_t>(block);
  const auto count16 = static_cast<std::uint16_t>(count);
  const bool is_long = count > kTransferOf10ByteForms;
  switch (request.operation) {
    case BlockOperation::read:
      task.direction = DataDirection::in;
      task.cdb = is_long || uses_16_byte_form(scsi_operation::kRead10, scsi_operation::kRead16)
                     ? read16_cdb(block, count)
                     : read10_cdb(block32, count16);
      return;
    case BlockOperation::write:
      task.direction = DataDirection::out;
      task.cdb = is_long || uses_16_byte_form(scsi_operation::kWrite10, scsi_operation::kWrite16)
                     ? write16_cdb(block, count)
                     : write10_cdb(block32, count16);
      return;
    case BlockOperation::flush:
      task.direction = DataDirection::none;
      task.data = nullptr;
      task.data_length_bytes = 0;
      task.cdb = uses_16_byte_form(scsi_operation::kSynchronizeCache10,
                                   scsi_operation::kSynchronizeCache16)
                     ? synchronize_cache16_cdb()
                     : synchronize_cache10_cdb();
      return;
    case BlockOperation::discard:
      ISCSI_BLKBACK_ASSERT(false);  // prepare_discard()
      return;
  }
}

DiscardForm LogicalUnitIdentity::discard_form() const {
  if (!thin_provisioned) {
    return DiscardForm::none;
  }
  if (provisioning.unmap && limits.max_unmap_blocks != 0 && limits.max_unmap_ranges != 0) {
    return DiscardForm::unmap;
  }
  return provisioning.write_same_unmap ? DiscardForm::write_same : DiscardForm::none;
}

void LogicalUnit::prepare_discard(ScsiTask& task, const BlockRequest& request, DiscardForm form,
                                  DiscardParameters& parameters) const {
  // Of WRITE SAME, which only reads it.
  alignas(std::max_align_t) static std::array<std::byte, 4096> zeros{};
  const SectorRange range{.sector = request.sector, .sector_count = request.sector_count};
  if (form == DiscardForm::write_same) {
    const BlockRange blocks = in_blocks(range);
    prepare(task, write_same16_cdb(blocks.block, blocks.block_count, true), DataDirection::out,
            std::span(zeros).first(logical_block_bytes_));
  } else {
    prepare_unmap(task, {&range, 1}, parameters);
  }
}

bool LogicalUnit::refused(std::uint8_t operation) const {
  return (refused_forms_ & form_bit(operation)) != 0;
}

bool LogicalUnit::try_other_form(const ScsiTask& task) {
  const std::uint8_t operation = task.cdb[0];
  if (form_bit(operation) == 0) {
    return false;
  }
  const bool transfers_by_16_byte_form =
      operation == scsi_operation::kRead16 || operation == scsi_operation::kWrite16;
  if (transfers_by_16_byte_form &&
      (block_count_ > kBlocksOf10ByteForms ||
       task.data_length_bytes / logical_block_bytes_ > kTransferOf10ByteForms)) {
    return false;  // nor is it learned: the next request would be one for another place
  }
  refused_forms_ |= form_bit(operation);
  return !refused(other_form(operation));
}

bool LogicalUnit::refuses_flushes() const {
  return refused(scsi_operation::kSynchronizeCache10) &&
         refused(scsi_operation::kSynchronizeCache16);
}

void LogicalUnit::prepare(ScsiTask& task, const Cdb& cdb, DataDirection direction,
                          std::span<std::byte> data) const {
  task.cdb = cdb;
  task.lun = lun_;
  task.direction = direction;
  task.data = data.empty() ? nullptr : data.data();
  task.data_length_bytes = static_cast<std::uint32_t>(data.size());
}

void LogicalUnit::prepare_test_unit_ready(ScsiTask& task) const {
  prepare(task, test_unit_ready_cdb(), DataDirection::none, {});
}

void LogicalUnit::prepare_inquiry(ScsiTask& task, int page, std::size_t bytes,
                                  std::span<std::byte> buffer) const {
  prepare(task, inquiry_cdb(page, static_cast<std::uint16_t>(bytes)), DataDirection::in,
          buffer.first(bytes));
}

void LogicalUnit::prepare_read_capacity(ScsiTask& task, std::span<std::byte> buffer) const {
  constexpr std::uint32_t kCapacity10Bytes = 8;
  ISCSI_BLKBACK_ASSERT(buffer.size() >= kCapacityBytes);
  if (has_16_byte_commands_) {
    prepare(task, read_capacity16_cdb(kCapacityBytes), DataDirection::in,
            buffer.first(kCapacityBytes));
  } else {
    prepare(task, read_capacity10_cdb(), DataDirection::in, buffer.first(kCapacity10Bytes));
  }
}

Result<Capacity> LogicalUnit::capacity_of(const ScsiTask& task) const {
  const auto bytes = std::span<const std::byte>(task.data, task.data_length_bytes)
                         .first(std::min(task.transferred_bytes, task.data_length_bytes));
  return has_16_byte_commands_ ? parse_read_capacity16(bytes) : parse_read_capacity10(bytes);
}

BlockRange LogicalUnit::in_blocks(SectorRange range) const {
  const std::uint32_t sectors_per_block = logical_block_bytes_ / kSectorBytes;
  ISCSI_BLKBACK_ASSERT(range.sector % sectors_per_block == 0 &&
                       range.sector_count % sectors_per_block == 0);
  return {.block = range.sector / sectors_per_block,
          .block_count = range.sector_count / sectors_per_block};
}

void LogicalUnit::prepare_unmap(ScsiTask& task, std::span<const SectorRange> ranges,
                                std::span<std::byte> buffer) const {
  // A range at a time into the list: no memory but the caller's.
  const std::size_t bytes = unmap_list_bytes(ranges.size());
  ISCSI_BLKBACK_ASSERT(ranges.size() <= kMaxUnmapRanges && buffer.size() >= bytes);
  begin_unmap_list(ranges.size(), buffer);
  for (std::size_t index = 0; index < ranges.size(); ++index) {
    put_unmap_range(in_blocks(ranges[index]), index, buffer);
  }
  prepare(task, unmap_cdb(static_cast<std::uint16_t>(bytes)), DataDirection::out,
          buffer.first(bytes));
}

void LogicalUnit::prepare_report_target_port_groups(ScsiTask& task, std::span<std::byte> buffer,
                                                    bool extended) const {
  prepare(task, report_target_port_groups_cdb(static_cast<std::uint32_t>(buffer.size()), extended),
          DataDirection::in, buffer);
}

void LogicalUnit::prepare_set_target_port_groups(ScsiTask& task,
                                                 std::span<const SetTargetPortGroup> groups,
                                                 std::span<std::byte> buffer) const {
  const std::size_t bytes = set_target_port_groups_list_bytes(groups.size());
  encode_set_target_port_groups_list(groups, buffer);
  prepare(task, set_target_port_groups_cdb(static_cast<std::uint32_t>(bytes)), DataDirection::out,
          buffer.first(bytes));
}

void LogicalUnit::prepare_rdac_take_over(ScsiTask& task, std::uint8_t max_lun,
                                         std::span<std::byte> buffer) const {
  const bool long_form = max_lun >= kRdacShortLuns;
  const std::size_t bytes = long_form ? kRdacLongListBytes : kRdacShortListBytes;
  // Such arrays number the LUNs of a host up to 255 (peripheral addressing): the second byte.
  encode_rdac_take_over(static_cast<std::uint8_t>(lun_ >> 48), long_form, buffer);
  prepare(task,
          long_form ? mode_select10_cdb(static_cast<std::uint16_t>(bytes))
                    : mode_select6_cdb(static_cast<std::uint8_t>(bytes)),
          DataDirection::out, buffer.first(bytes));
}

void LogicalUnit::prepare_reserve_in(ScsiTask& task, ReserveInAction action,
                                     std::span<std::byte> buffer) const {
  const std::span<std::byte> used = buffer.first(std::min<std::size_t>(buffer.size(), 0xffff));
  prepare(task,
          persistent_reserve_in_cdb(static_cast<std::uint8_t>(action),
                                    static_cast<std::uint16_t>(used.size())),
          DataDirection::in, used);
}

void LogicalUnit::prepare_reserve_out(ScsiTask& task, ReserveOutAction action, ReservationType type,
                                      const ReserveOutList& values,
                                      std::span<std::byte> buffer) const {
  encode_reserve_out_list(values, buffer);
  prepare(task,
          persistent_reserve_out_cdb(static_cast<std::uint8_t>(action),
                                     static_cast<std::uint8_t>(type), kReserveOutListBytes),
          DataDirection::out, buffer.first(kReserveOutListBytes));
}

void LogicalUnit::prepare_report_luns(ScsiTask& task, std::span<std::byte> buffer) const {
  prepare(task, report_luns_cdb(static_cast<std::uint32_t>(buffer.size())), DataDirection::in,
          buffer);
}

}  // namespace iscsi_blkback
