#include "initiator/session/command_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"

namespace iscsi_blkback {

void CommandAnswers::take_status_numbers(const TargetNumbers& numbers) {
  switch (numbers_.statuses.take(numbers.stat_sn)) {
    case StatusSequence::Arrival::in_order:
    case StatusSequence::Arrival::late:
      break;
    case StatusSequence::Arrival::early:
      tolerated_.note(Tolerated::status_order);
      break;
    case StatusSequence::Arrival::renumbered:
      tolerated_.note(Tolerated::status_renumbered);
      break;
  }
  take_window(numbers);
}

void CommandAnswers::take_window(const TargetNumbers& numbers) {
  if (numbers_.take_window(numbers) && queue_.has_waiting()) {
    flush_.schedule();
  }
}

// Inline, as each command comes by.
inline void CommandAnswers::set_transferred(TaskSlot& slot, bool underflow, bool overflow,
                                            std::uint32_t residual) {
  ScsiTask& task = *slot.task;
  const std::uint32_t missing = underflow ? std::min(residual, task.data_length_bytes) : 0;
  const std::uint32_t moved =
      task.direction == DataDirection::in ? slot.arrived_bytes : slot.staged_bytes;
  task.overflow = overflow;
  task.transferred_bytes = std::min(task.data_length_bytes - missing, moved);
}

// DataPDUInOrder and DataSequenceInOrder are Yes: data come without gap or overlap, so that the count of
// what has arrived proves that the buffer is full. What is in order is found out here, what is not in
// why_refused(), so that each Data-In pays for no sentence.
TaskSlot* CommandAnswers::accept_data_in(const DataInPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr) [[unlikely]] {
    return nullptr;
  }
  const ScsiTask& task = *slot->task;
  // 11.7.1: status only in the last PDU of a sequence, residual bits only with status; 11.7.2: the
  // acknowledgement that the A bit asks for exists from error recovery level 1 on.
  if (pdu.acknowledge || (pdu.has_status && !pdu.final) ||
      (!pdu.has_status && (pdu.overflow || pdu.underflow))) [[unlikely]] {
    tolerated_.note(Tolerated::data_in_flags);
  }
  const bool in_order = task.direction == DataDirection::in && pdu.data_sn == slot->next_sn;
  if (pdu.data_bytes == 0) [[unlikely]] {
    if (in_order) {
      ++slot->next_sn;
    } else {
      tolerated_.note(Tolerated::empty_data_in);
    }
  } else if (in_order && pdu.buffer_offset == slot->arrived_bytes &&
             pdu.data_bytes <= task.data_length_bytes - slot->arrived_bytes) [[likely]] {
    ++slot->next_sn;
  } else {
    return nullptr;
  }
  slot->last_progress = watchdog_.scan();
  return slot;
}

Error CommandAnswers::why_refused(const DataInPdu& pdu) {
  const TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr) {
    return {ErrorCode::protocol, "a Data-In for a task that does not exist"};
  }
  const ScsiTask& task = *slot->task;
  if (task.direction != DataDirection::in) {
    return {ErrorCode::protocol, "a Data-In for a task that reads nothing"};
  }
  if (pdu.data_sn != slot->next_sn) {
    return {ErrorCode::protocol,
            fmt::format("a Data-In with DataSN {} in place of {}", pdu.data_sn, slot->next_sn)};
  }
  return {ErrorCode::protocol,
          fmt::format("a Data-In of {} bytes at offset {} in place of {} (of {})", pdu.data_bytes,
                      pdu.buffer_offset, slot->arrived_bytes, task.data_length_bytes)};
}

Result<void> CommandAnswers::take_data_in(const DataInPdu& pdu, const std::byte* data) {
  TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) [[unlikely]] {
    return tl::unexpected(why_refused(pdu));
  }
  if (const ScsiTask& task = *slot->task; pdu.data_bytes != 0 && task.data != nullptr) {
    std::memcpy(task.data + pdu.buffer_offset, data, pdu.data_bytes);
  }
  finish_data_in(*slot, pdu);
  return {};
}

Result<std::byte*> CommandAnswers::begin_data_in(const DataInPdu& pdu) {
  if (const TaskSlot* meant = queue_.find(pdu.initiator_task_tag);
      meant != nullptr && meant->task->data == nullptr) {
    return nullptr;
  }
  const TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) [[unlikely]] {
    return tl::unexpected(why_refused(pdu));
  }
  return slot->task->data + pdu.buffer_offset;
}

void CommandAnswers::finish_data_in(const DataInPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  ISCSI_BLKBACK_ASSERT(slot != nullptr);
  finish_data_in(*slot, pdu);
}

void CommandAnswers::finish_data_in(TaskSlot& slot, const DataInPdu& pdu) {
  slot.arrived_bytes += pdu.data_bytes;
  if (!pdu.has_status) {
    take_window(pdu.numbers);
    return;
  }
  take_status_numbers(pdu.numbers);
  if (pdu.overflow && pdu.underflow) [[unlikely]] {
    tolerated_.note(Tolerated::residual_both_ways);
  }
  ScsiTask& task = *slot.task;
  task.outcome = TaskOutcome::completed;
  task.status = static_cast<ScsiStatus>(pdu.status);
  task.response_code = 0;
  task.sense = SenseData{};
  set_transferred(slot, pdu.underflow, pdu.overflow, pdu.residual_bytes);
  finish(slot);
}

Result<TaskSlot*> CommandAnswers::take_response(const ScsiResponsePdu& pdu, const std::byte* data) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr) {
    return fail(ErrorCode::protocol, "a SCSI Response for a task that does not exist");
  }
  if (pdu.overflow && pdu.underflow) [[unlikely]] {
    tolerated_.note(Tolerated::residual_both_ways);
  }
  // 11.4.8: the count of Data-In (reads) or R2T (writes). Whether one is missing, the count of
  // bytes says (set_transferred()). Fewer say nothing at all: targets leave the field out.
  if (pdu.response == 0 && slot->task->direction != DataDirection::none &&
      serial_before(slot->next_sn, pdu.exp_data_sn)) [[unlikely]] {
    tolerated_.note(Tolerated::exp_data_sn);
  }
  take_status_numbers(pdu.numbers);
  ScsiTask& task = *slot->task;
  task.response_code = pdu.response;
  task.outcome = pdu.response == 0 ? TaskOutcome::completed : TaskOutcome::target_failure;
  task.status = static_cast<ScsiStatus>(pdu.status);
  task.sense = SenseData{};
  if (pdu.data_bytes >= 2) {
    // 11.4.7: a 2-byte length, the sense data, then data of the iSCSI response.
    const std::size_t length =
        std::min<std::size_t>(load_be16(data), std::size_t{pdu.data_bytes} - 2);
    task.sense = parse_sense({data + 2, length});
  }
  // No command of ours transfers both ways: an answer that speaks of that is one to another
  // command.
  const bool overflow = pdu.overflow || pdu.bidirectional_overflow || pdu.bidirectional_underflow;
  set_transferred(*slot, pdu.underflow, overflow, pdu.residual_bytes);
  return slot;
}

Result<void> CommandAnswers::take_r2t(const R2tPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr || slot->task->direction != DataDirection::out) {
    return fail(ErrorCode::protocol, "an R2T for a task that does not exist or writes nothing");
  }
  const ScsiTask& task = *slot->task;
  if (pdu.r2t_sn != slot->next_sn) {
    return fail(ErrorCode::protocol, "an R2T out of order");
  }
  // Data that was asked for before may be asked for once more, but nothing may be left out: then
  // the end of what was sent proves that all was.
  if (pdu.buffer_offset > slot->requested_bytes || pdu.desired_bytes == 0 ||
      pdu.desired_bytes > task.data_length_bytes - pdu.buffer_offset) {
    return fail(ErrorCode::protocol,
                fmt::format("an R2T for {} bytes at offset {} (of {}, {} asked for before)",
                            pdu.desired_bytes, pdu.buffer_offset, task.data_length_bytes,
                            slot->requested_bytes));
  }
  if (!sender_.add_burst({.initiator_task_tag = pdu.initiator_task_tag,
                          .target_transfer_tag = pdu.target_transfer_tag,
                          .offset = pdu.buffer_offset,
                          .end = pdu.buffer_offset + pdu.desired_bytes,
                          .data_sn = 0,
                          .asked_for = true})) {
    return fail(ErrorCode::protocol, "far more R2Ts than MaxOutstandingR2T allows");
  }
  if (pdu.target_transfer_tag == kReservedTag) [[unlikely]] {
    tolerated_.note(Tolerated::r2t_without_tag);
  }
  if (pdu.buffer_offset < slot->requested_bytes) [[unlikely]] {
    tolerated_.note(Tolerated::r2t_for_sent_data);
  }
  if (pdu.desired_bytes > negotiated_.max_burst_length) [[unlikely]] {
    tolerated_.note(Tolerated::long_r2t);
  }
  if (slot->outstanding_r2ts >= negotiated_.max_outstanding_r2t) [[unlikely]] {
    tolerated_.note(Tolerated::many_r2ts);
  }
  ++slot->next_sn;
  ++slot->outstanding_r2ts;
  slot->requested_bytes = std::max(slot->requested_bytes, pdu.buffer_offset + pdu.desired_bytes);
  slot->last_progress = watchdog_.scan();
  take_window(pdu.numbers);
  flush_.schedule();
  return {};
}

}  // namespace iscsi_blkback
