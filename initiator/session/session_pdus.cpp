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
  observers_.for_each([this](SessionObserver& observer) { observer.on_session_up(session_); });
}

// When nothing is outstanding, no answer can come any more with a number that is missing.
void Session::Impl::pass_status_gaps() {
  if (numbers_.statuses.has_gap() && !queue_.busy() && functions_.used() == 0 &&
      !keep_alive_.ping_outstanding()) {
    numbers_.statuses.pass_gaps();
    tolerated_.note(Tolerated::status_renumbered);
  }
}

void Session::Impl::fail_unless(const Result<void>& taken) {
  if (!taken) [[unlikely]] {
    fail_protocol(taken.error().message);
  }
}

void Session::Impl::handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data) {
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
        [&](SessionObserver& observer) { observer.on_scsi_event(session_, lun, sense); });
    slot = connection_active() ? queue_.find(pdu.initiator_task_tag) : nullptr;
    if (slot == nullptr) {
      return;  // dropped by one of them
    }
  }
  answers_.finish(*slot);
}

}  // namespace iscsi_blkback
