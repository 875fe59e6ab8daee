// What a session sends and receives: the one send and the one receive of a turn, and what becomes of
// each PDU.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "base/log.h"
#include "initiator/scsi/error_class.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/session/reject.h"
#include "initiator/session/session.h"
#include "initiator/session/session_tags.h"

namespace iscsi_blkback {
namespace {

FunctionOutcome outcome_of(std::uint8_t response) {  // RFC 7143 11.6.1
  switch (response) {
    case 0:
      return FunctionOutcome::complete;
    case 1:
      return FunctionOutcome::no_such_task;
    case 2:
      return FunctionOutcome::no_such_lun;
    case 5:
      return FunctionOutcome::unsupported;
    default:
      return FunctionOutcome::refused;
  }
}

}  // namespace

// Fills one batch with everything that may be sent now, in the order: answers to the target, data
// that it waits for, new commands as far as its window and our table allow.
void Session::flush() {
  if (!full_feature_phase()) {
    return;
  }
  if (!sender_.sending() && !logout_.sent()) {  // 11.14: nothing follows a Logout
    send_batch();
  }
  if (!pacer_.take_due()) {
    return;
  }
  const std::size_t low_water = pacer_.low_water_bytes(
      queue_.in_flight(), receiver_.in_large_data_in(), reactor_.turn_time());
  stream_->set_low_water(low_water);
  receive(low_water == 1 ? ReceivePacer::part_bytes(queue_.in_flight()) : ~std::size_t{0});
}

void Session::send_batch() {
  sender_.begin_batch();
  sender_.stage_ping_replies();
  if (keep_alive_.take_queued()) {
    sender_.stage_ping();
  }
  functions_.stage(sender_.batch());
  if (logout_.due(queue_.busy())) {
    logout_.send(reactor_.now(), options_.logout_timeout);
    stop_watching();
    sender_.stage_logout();
  }
  if (!logout_.sent()) {
    sender_.stage_bursts();
    if (sender_.stage_commands() && keep_alive_.ping_outstanding()) [[unlikely]] {
      ask_for_peer();
    }
    statistics_.commands = sender_.commands();
  }
  TransmitBatch& batch = sender_.batch();
  if (batch.empty()) {
    return;
  }
  batch.seal();
  sender_.sends();
  ++statistics_.sends;
  statistics_.bytes_sent += batch.total_bytes();
  stream_->send(batch.parts());
  if (sender_.has_more()) {
    schedule_flush();  // on_sent shall come soon
  }
}

void Session::receive(std::size_t limit_bytes) {
  std::array<iovec, 2> parts;
  stream_->receive(receiver_.room(limit_bytes, parts));
}

void Session::on_received(std::size_t count) noexcept {
  ++statistics_.receives;
  statistics_.bytes_received += count;
  if (keep_alive_.waits_on()) [[unlikely]] {
    note_end_of_silence();
  }
  const TimePoint now = reactor_.turn_time();
  keep_alive_.on_received(now);
  pacer_.stop_waiting();
  if (!connection_active()) {
    return;  // being reset; on_closed follows
  }
  const std::uint32_t were_in_flight = queue_.in_flight();
  const std::uint32_t were_finished = answers_.finished();
  receiver_.arrived(count);
  take_received();
  if (!full_feature_phase()) {
    if (connection_active()) {
      receive(ReceivePacer::part_bytes(0));
    }
    return;
  }
  pacer_.received(count, answers_.finished() - were_finished, were_in_flight, now);
  schedule_flush();
}

void Session::take_received() {
  IncomingPdu pdu;
  while (connection_active()) {
    switch (receiver_.next(pdu)) {
      case PduReceiver::Next::pdu:
        handle_pdu(pdu);
        break;
      case PduReceiver::Next::needs_more:
        return;
      case PduReceiver::Next::large_data_in:
        if (!begin_large_data_in(pdu)) {
          return;
        }
        break;
      case PduReceiver::Next::large_data_in_complete:
        answers_.finish_data_in(receiver_.large_data_in());
        break;
      case PduReceiver::Next::too_long:
        fail_protocol(std::string("a ") + to_string(pdu.header.opcode) +
                      " with more data than MaxRecvDataSegmentLength allows");
        return;
      case PduReceiver::Next::wrong_header_digest:
        fail_digest("header", pdu.header.opcode);
        return;
      case PduReceiver::Next::wrong_data_digest:
        fail_digest("data", pdu.header.opcode);
        return;
    }
  }
}

// Whether its data goes straight to the task's buffer.
bool Session::begin_large_data_in(const IncomingPdu& received) {
  const Result<std::byte*> destination = answers_.begin_data_in(decode_data_in(received.bytes()));
  if (!destination) {
    fail_protocol(destination.error().message);
    return false;
  }
  if (*destination == nullptr) {
    receiver_.keep_staged();
    return false;
  }
  receiver_.receive_into(*destination);
  return true;
}

// At error recovery level 0 a digest that is wrong ends the connection (RFC 7143 7.8): nothing is
// known of what was sent.
void Session::fail_digest(const char* which, Opcode opcode) {
  backoff_.blame(RepeatedEnds::Cause::broken_rule);
  fail_connection({ErrorCode::io,
                   fmt::format("a {} from {} arrived damaged (wrong {} digest); the network or a "
                               "network card alters data",
                               to_string(opcode), where(), which)});
}

void Session::handle_pdu(const IncomingPdu& pdu) {
  if (!full_feature_phase()) {
    handle_login_pdu(pdu);
    return;
  }
  const BhsBytes bytes = pdu.bytes();
  const std::byte* data = pdu.data;
  switch (pdu.header.opcode) {
    case Opcode::data_in:
      fail_unless(answers_.take_data_in(decode_data_in(bytes), data));
      return;
    case Opcode::scsi_response:
      handle_scsi_response(decode_scsi_response(bytes), data);
      return;
    case Opcode::r2t:
      fail_unless(answers_.take_r2t(decode_r2t(bytes)));
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

void Session::handle_login_pdu(const IncomingPdu& pdu) {
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

void Session::redirect() {
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

void Session::send_login_request() {
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

void Session::enter_full_feature_phase() {
  const Login& login = login_.login();
  negotiated_ = login.negotiated();
  portal_address_ = redirects_.portal_address();
  peer_ = redirects_.login_address();
  numbers_.begin(login.numbers());
  receiver_.enter_full_feature_phase(negotiated_.digests, options_.max_recv_data_segment_length);
  if (const std::string& faults = login.tolerated(); !faults.empty()) {
    tolerated_.note(Tolerated::login, faults);
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
  observers_.for_each([this](SessionObserver& observer) { observer.on_session_up(*this); });
}

// When nothing is outstanding, no answer can come any more with a number that is missing.
void Session::pass_status_gaps() {
  if (numbers_.statuses.has_gap() && !queue_.busy() && functions_.used() == 0 &&
      !keep_alive_.ping_outstanding()) {
    numbers_.statuses.pass_gaps();
    tolerated_.note(Tolerated::status_renumbered);
  }
}

void Session::fail_unless(const Result<void>& taken) {
  if (!taken) [[unlikely]] {
    fail_protocol(taken.error().message);
  }
}

void Session::handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data) {
  const Result<TaskSlot*> taken = answers_.take_response(pdu, data);
  if (!taken) {
    fail_protocol(taken.error().message);
    return;
  }
  TaskSlot* slot = *taken;
  const ScsiTask& task = *slot->task;
  if (task.ended_with_attention() ||
      (task.status == ScsiStatus::check_condition && tells_loss(task.sense))) [[unlikely]] {
    // A target says it once, to whichever command comes first.
    const std::uint64_t lun = task.lun;
    const SenseData sense = task.sense;
    observers_.for_each(
        [&](SessionObserver& observer) { observer.on_scsi_event(*this, lun, sense); });
    slot = connection_active() ? queue_.find(pdu.initiator_task_tag) : nullptr;
    if (slot == nullptr) {
      return;  // dropped by one of them
    }
  }
  answers_.finish(*slot);
}

void Session::handle_nop_in(const NopInPdu& pdu) {
  if (pdu.initiator_task_tag != kReservedTag) {
    if (pdu.initiator_task_tag != kPingTag) {
      fail_protocol("a NOP-In that answers no NOP-Out");
      return;
    }
    if (keep_alive_.ping_sent()) {
      ping_answered();
    } else {
      tolerated_.note(Tolerated::ping_answer);
    }
    answers_.take_status_numbers(pdu.numbers);
    return;
  }
  answers_.take_window(pdu.numbers);
  if (pdu.target_transfer_tag == kReservedTag) {
    return;  // only there for its sequence numbers
  }
  if (!sender_.add_ping_reply(pdu.lun, pdu.target_transfer_tag)) {
    tolerated_.note(Tolerated::many_pings);
    return;
  }
  schedule_flush();
}

void Session::handle_async_message(const AsyncMessagePdu& pdu, const std::byte* data) {
  answers_.take_status_numbers(pdu.numbers);
  switch (pdu.event) {
    case AsyncEvent::scsi_event: {
      const std::size_t length =
          pdu.data_bytes >= 2
              ? std::min<std::size_t>(load_be16(data), std::size_t{pdu.data_bytes} - 2)
              : 0;
      const SenseData sense = length != 0 ? parse_sense({data + 2, length}) : SenseData{};
      log_limited(log_limiter_, reactor_.now(), LogLevel::info, "session",
                  "{} reports a SCSI event of LUN {}: sense {}", where(), lun_text(pdu.lun),
                  sense_text(sense));
      if (sense.valid) {
        observers_.for_each(
            [&](SessionObserver& observer) { observer.on_scsi_event(*this, pdu.lun, sense); });
      }
      return;
    }
    case AsyncEvent::logout_request:
      logout_as_asked("a logout", pdu.parameter3);
      return;
    case AsyncEvent::connection_drop:
    case AsyncEvent::session_drop:
      backoff_.demand(std::chrono::seconds{pdu.parameter2});
      backoff_.blame(RepeatedEnds::Cause::ended_by_target);
      fail_connection({ErrorCode::unavailable, fmt::format("{} drops the connection", where())});
      return;
    case AsyncEvent::negotiation_request:
      // Negotiation within the full feature phase is not worth having; a new login is the same.
      logout_as_asked("new parameters", pdu.parameter3);
      return;
  }
  // Other events are the vendor's and demand nothing.
}

void Session::logout_as_asked(const char* what, std::uint16_t limit_seconds) {
  begin_logout({ErrorCode::unavailable, fmt::format("{} asks for {}", where(), what)},
               LogoutSequence::asked_for(limit_seconds));
}

void Session::handle_reject(const RejectPdu& pdu, const std::byte* data) {
  answers_.take_status_numbers(pdu.numbers);
  const Reject reject(pdu, data);
  const TaskSlot* slot = queue_.find(reject.tag());
  const Reject::Verdict verdict =
      reject.verdict({.ping_sent = keep_alive_.ping_sent(),
                      .others_outstanding = queue_.busy() || functions_.used() != 0,
                      .is_function = functions_.is_sent(reject.tag()),
                      .is_command = slot != nullptr});
  if (verdict.tolerated) {
    tolerated_.note(*verdict.tolerated);
  }
  switch (verdict.meaning) {
    case Reject::Meaning::nothing:
      return;
    case Reject::Meaning::ping_answered:
      ping_answered();
      return;
    case Reject::Meaning::logout:
      logout_as_asked("a logout", 1);
      return;
    case Reject::Meaning::function_deferred:
      functions_.defer(reject.tag());
      return;
    case Reject::Meaning::function_unsupported:
      function_answered(reject.tag(), FunctionOutcome::unsupported);
      return;
    case Reject::Meaning::function_refused:
      function_answered(reject.tag(), FunctionOutcome::refused);
      return;
    case Reject::Meaning::data_damaged:
      hasten_timeout(slot->task->lun);  // in doubt until its answer comes
      return;
    case Reject::Meaning::broken_rule:
      fail_protocol(reject.to_string());
      return;
  }
}

void Session::handle_logout_response(const LogoutResponsePdu& pdu) {
  if (state_ != SessionState::in_logout || pdu.initiator_task_tag != kLogoutTag ||
      !logout_.sent()) {
    fail_protocol("a Logout Response that answers no Logout");
    return;
  }
  backoff_.demand(std::chrono::seconds{pdu.time2wait});
  leave_connection({ErrorCode::unavailable, fmt::format("logged out of {}", where())});
}

void Session::handle_task_management_response(const TaskManagementResponsePdu& pdu) {
  if (!functions_.expects_answer(pdu.initiator_task_tag)) {
    fail_protocol("a Task Management Response that answers no request");
    return;
  }
  answers_.take_status_numbers(pdu.numbers);
  function_answered(pdu.initiator_task_tag, outcome_of(pdu.response));
}

void Session::tell_tolerated(Tolerated rule, std::string_view details) {
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{} {}{}", where(),
              to_string(rule), details);
}

}  // namespace iscsi_blkback
