#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "initiator/scsi/error_class.h"
#include "initiator/session/session_impl.h"
#include "initiator/session/session_tags.h"

namespace iscsi_blkback {

void Session::Impl::handle_pdu(const IncomingPdu& pdu) {
  if (!full_feature_phase()) {
    handle_login_pdu(pdu);
    return;
  }
  const BhsBytes bytes = pdu.bytes();
  const std::byte* data = pdu.data;
  switch (pdu.header.opcode) {
    case Opcode::data_in:
      handle_data_in(decode_data_in(bytes), data);
      return;
    case Opcode::scsi_response:
      handle_scsi_response(decode_scsi_response(bytes), data);
      return;
    case Opcode::r2t:
      handle_r2t(decode_r2t(bytes));
      return;
    case Opcode::nop_in:
      handle_nop_in(decode_nop_in(bytes));
      return;
    case Opcode::async_message:
      handle_async_message(decode_async_message(bytes), data);
      return;
    case Opcode::task_management_response:
      handle_task_management_response(decode_task_management_response(bytes));
      return;
    case Opcode::reject:
      handle_reject(decode_reject(bytes), data);
      return;
    case Opcode::logout_response:
      handle_logout_response(decode_logout_response(bytes));
      return;
    case Opcode::nop_out:
    case Opcode::scsi_command:
    case Opcode::task_management_request:
    case Opcode::login_request:
    case Opcode::text_request:
    case Opcode::data_out:
    case Opcode::logout_request:
    case Opcode::snack_request:
    case Opcode::login_response:
    case Opcode::text_response:
      break;
  }
  fail_protocol(fmt::format("an unexpected {} (opcode 0x{:02x})", to_string(pdu.header.opcode),
                            static_cast<unsigned>(pdu.header.opcode)));
}

void Session::Impl::handle_login_pdu(const IncomingPdu& pdu) {
  const Result<Login::Progress> progress =
      login_.receive(pdu.bytes(), {pdu.data, pdu.header.data_bytes});
  if (!progress) {
    const Error& error = progress.error();
    if (error.code == ErrorCode::protocol) {
      backoff_.blame(RepeatedEnds::Cause::broken_rule);
    }
    fail_connection({error.code, fmt::format("login to {} failed: {}", where(), error.message)});
    return;
  }
  switch (*progress) {
    case Login::Progress::request:
      send_login_request();
      return;
    case Login::Progress::complete:
      enter_full_feature_phase();
      return;
    case Login::Progress::redirected:
      redirect();
      return;
  }
}

void Session::Impl::redirect() {
  const std::string& address = login_.login().redirect_address();
  if (const Result<void> followed =
          redirects_.redirect(address, login_.login().moved_permanently());
      !followed) {
    fail_connection(
        {followed.error().code, fmt::format("{} {}", where(), followed.error().message)});
    return;
  }
  leave_connection({ErrorCode::unavailable, fmt::format("{} redirects to {}", where(), address)});
}

void Session::Impl::send_login_request() {
  if (sender_.sending()) {
    // The answer was faster than the news that the kernel has taken all of the last request.
    login_.send_later();
    return;
  }
  const std::span<std::byte> request = login_.next_request();
  const iovec part{.iov_base = request.data(), .iov_len = request.size()};
  sender_.sends();
  ++statistics_.sends;
  statistics_.bytes_sent += request.size();
  stream_->send({&part, 1});
}

void Session::Impl::enter_full_feature_phase() {
  const Login& login = login_.login();
  negotiated_ = login.negotiated();
  portal_address_ = redirects_.portal_address();
  peer_ = redirects_.login_address();
  numbers_.begin(login.numbers());
  receiver_.enter_full_feature_phase(negotiated_.digests, options_.max_recv_data_segment_length);
  if (const std::string& faults = login.tolerated(); !faults.empty()) {
    tolerate(Tolerated::login, faults);
  }
  login_.succeeded();
  state_ = SessionState::logged_in;
  redirects_.logged_in();
  const TimePoint now = reactor_.now();
  backoff_.logged_in(now);
  keep_alive_.schedule(now, queue_.busy());
  ++login_epoch_;
  ++statistics_.logins;
  log_limited(log_limiter_, now, LogLevel::info, "session", "logged in to {}", where());
  observers_.for_each([this](SessionObserver& observer) { observer.on_session_up(session_); });
}

// For a PDU that has a StatSN of its own.
void Session::Impl::take_status_numbers(const TargetNumbers& numbers) {
  switch (numbers_.statuses.take(numbers.stat_sn)) {
    case StatusSequence::Arrival::in_order:
    case StatusSequence::Arrival::late:
      break;
    case StatusSequence::Arrival::early:
      tolerate(Tolerated::status_order);
      break;
    case StatusSequence::Arrival::renumbered:
      tolerate(Tolerated::status_renumbered);
      break;
  }
  take_window(numbers);
}

// When nothing is outstanding, no answer can come any more with a number that is missing.
void Session::Impl::pass_status_gaps() {
  if (numbers_.statuses.has_gap() && !queue_.busy() && functions_.used() == 0 &&
      !keep_alive_.ping_outstanding()) {
    numbers_.statuses.pass_gaps();
    tolerate(Tolerated::status_renumbered);
  }
}

void Session::Impl::tolerate(Tolerated rule, std::string_view details) {
  const std::uint32_t bit = 1U << static_cast<unsigned>(rule);
  if ((tolerated_ & bit) == 0) {
    tolerated_ |= bit;
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{} {}{}", where(),
                to_string(rule), details);
  }
}

void Session::Impl::take_window(const TargetNumbers& numbers) {
  if (numbers_.take_window(numbers) && queue_.has_waiting()) {
    schedule_flush();
  }
}

TaskSlot* Session::Impl::accept_data_in(const DataInPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr) {
    fail_protocol("a Data-In for a task that does not exist");
    return nullptr;
  }
  const ScsiTask& task = *slot->task;
  // 11.7.1: status only in the last PDU of a sequence, residual bits only with status; 11.7.2: the
  // acknowledgement that the A bit asks for exists from error recovery level 1 on.
  if (pdu.acknowledge || (pdu.has_status && !pdu.final) ||
      (!pdu.has_status && (pdu.overflow || pdu.underflow))) [[unlikely]] {
    tolerate(Tolerated::data_in_flags);
  }
  if (pdu.data_bytes == 0) {
    if (task.direction == DataDirection::in && pdu.data_sn == slot->next_sn) {
      ++slot->next_sn;
    } else {
      tolerate(Tolerated::empty_data_in);
    }
    slot->last_progress = watchdog_.scan();
    return slot;
  }
  if (task.direction != DataDirection::in) {
    fail_protocol("a Data-In for a task that reads nothing");
    return nullptr;
  }
  // DataPDUInOrder and DataSequenceInOrder are Yes: data come without gap or overlap, so that the
  // count of what has arrived proves that the buffer is full.
  if (pdu.data_sn != slot->next_sn) {
    fail_protocol(
        fmt::format("a Data-In with DataSN {} in place of {}", pdu.data_sn, slot->next_sn));
    return nullptr;
  }
  if (pdu.buffer_offset != slot->arrived_bytes ||
      pdu.data_bytes > task.data_length_bytes - slot->arrived_bytes) {
    fail_protocol(fmt::format("a Data-In of {} bytes at offset {} in place of {} (of {})",
                              pdu.data_bytes, pdu.buffer_offset, slot->arrived_bytes,
                              task.data_length_bytes));
    return nullptr;
  }
  ++slot->next_sn;
  slot->last_progress = watchdog_.scan();
  return slot;
}

void Session::Impl::handle_data_in(const DataInPdu& pdu, const std::byte* data) {
  TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) {
    return;
  }
  if (pdu.data_bytes != 0 && slot->task->data != nullptr) {
    std::memcpy(slot->task->data + pdu.buffer_offset, data, pdu.data_bytes);
  }
  finish_data_in(pdu);
}

void Session::Impl::finish_data_in(const DataInPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  ISCSI_BLKBACK_ASSERT(slot != nullptr);
  slot->arrived_bytes += pdu.data_bytes;
  if (!pdu.has_status) {
    take_window(pdu.numbers);
    return;
  }
  take_status_numbers(pdu.numbers);
  if (pdu.overflow && pdu.underflow) [[unlikely]] {
    tolerate(Tolerated::residual_both_ways);
  }
  ScsiTask& task = *slot->task;
  task.outcome = TaskOutcome::completed;
  task.status = static_cast<ScsiStatus>(pdu.status);
  task.response_code = 0;
  task.sense = SenseData{};
  set_transferred(*slot, pdu.underflow, pdu.overflow, pdu.residual_bytes);
  finish(*slot);
}

void Session::Impl::handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr) {
    fail_protocol("a SCSI Response for a task that does not exist");
    return;
  }
  if (pdu.overflow && pdu.underflow) [[unlikely]] {
    tolerate(Tolerated::residual_both_ways);
  }
  // 11.4.8: the count of Data-In (reads) or R2T (writes). Whether one is missing, the count of
  // bytes says (set_transferred()). Fewer say nothing at all: targets leave the field out.
  if (pdu.response == 0 && slot->task->direction != DataDirection::none &&
      serial_before(slot->next_sn, pdu.exp_data_sn)) [[unlikely]] {
    tolerate(Tolerated::exp_data_sn);
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
  if (task.ended_with_attention() ||
      (task.status == ScsiStatus::check_condition && tells_loss(task.sense))) [[unlikely]] {
    // A target says it once, to whichever command comes first.
    const std::uint64_t lun = task.lun;
    const SenseData sense = task.sense;
    observers_.for_each(
        [&](SessionObserver& observer) { observer.on_scsi_event(session_, lun, sense); });
    slot = connection_active() ? queue_.find(pdu.initiator_task_tag) : nullptr;
    if (slot == nullptr) {
      return;  // dropped by one of them
    }
  }
  finish(*slot);
}

void Session::Impl::set_transferred(TaskSlot& slot, bool underflow, bool overflow,
                                    std::uint32_t residual) {
  ScsiTask& task = *slot.task;
  const std::uint32_t missing = underflow ? std::min(residual, task.data_length_bytes) : 0;
  const std::uint32_t moved =
      task.direction == DataDirection::in ? slot.arrived_bytes : slot.staged_bytes;
  task.overflow = overflow;
  task.transferred_bytes = std::min(task.data_length_bytes - missing, moved);
}

void Session::Impl::finish(TaskSlot& slot) {
  ++answers_;
  queue_.finish(slot, sender_.refers_to(slot));
}

void Session::Impl::handle_r2t(const R2tPdu& pdu) {
  TaskSlot* slot = queue_.find(pdu.initiator_task_tag);
  if (slot == nullptr || slot->task->direction != DataDirection::out) {
    fail_protocol("an R2T for a task that does not exist or writes nothing");
    return;
  }
  const ScsiTask& task = *slot->task;
  if (pdu.r2t_sn != slot->next_sn) {
    fail_protocol("an R2T out of order");
    return;
  }
  // Data that was asked for before may be asked for once more, but nothing may be left out: then
  // the end of what was sent proves that all was.
  if (pdu.buffer_offset > slot->requested_bytes || pdu.desired_bytes == 0 ||
      pdu.desired_bytes > task.data_length_bytes - pdu.buffer_offset) {
    fail_protocol(fmt::format("an R2T for {} bytes at offset {} (of {}, {} asked for before)",
                              pdu.desired_bytes, pdu.buffer_offset, task.data_length_bytes,
                              slot->requested_bytes));
    return;
  }
  if (!sender_.add_burst({.initiator_task_tag = pdu.initiator_task_tag,
                          .target_transfer_tag = pdu.target_transfer_tag,
                          .offset = pdu.buffer_offset,
                          .end = pdu.buffer_offset + pdu.desired_bytes,
                          .data_sn = 0,
                          .asked_for = true})) {
    fail_protocol("far more R2Ts than MaxOutstandingR2T allows");
    return;
  }
  if (pdu.target_transfer_tag == kReservedTag) [[unlikely]] {
    tolerate(Tolerated::r2t_without_tag);
  }
  if (pdu.buffer_offset < slot->requested_bytes) [[unlikely]] {
    tolerate(Tolerated::r2t_for_sent_data);
  }
  if (pdu.desired_bytes > negotiated_.max_burst_length) [[unlikely]] {
    tolerate(Tolerated::long_r2t);
  }
  if (slot->outstanding_r2ts >= negotiated_.max_outstanding_r2t) [[unlikely]] {
    tolerate(Tolerated::many_r2ts);
  }
  ++slot->next_sn;
  ++slot->outstanding_r2ts;
  slot->requested_bytes = std::max(slot->requested_bytes, pdu.buffer_offset + pdu.desired_bytes);
  slot->last_progress = watchdog_.scan();
  take_window(pdu.numbers);
  schedule_flush();
}

}  // namespace iscsi_blkback
