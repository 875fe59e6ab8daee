#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "base/log.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/session/session_impl.h"
#include "initiator/session/session_tags.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint8_t kDataDigestError = 0x02;  // reasons of a Reject, 11.17.1
constexpr std::uint8_t kCommandNotSupported = 0x05;
constexpr std::uint8_t kImmediateCommandReject = 0x06;
constexpr std::uint8_t kWaitingForLogout = 0x0c;

const char* reject_reason(std::uint8_t reason) {
  switch (reason) {
    case kDataDigestError:
      return "data digest error";
    case 0x03:
      return "SNACK rejected";
    case 0x04:
      return "protocol error";
    case kCommandNotSupported:
      return "command not supported";
    case kImmediateCommandReject:
      return "too many immediate commands";
    case 0x07:
      return "task in progress";
    case 0x08:
      return "invalid data acknowledgement";
    case 0x09:
      return "invalid PDU field";
    case 0x0a:
      return "out of target transfer tags";
    case 0x0b:
      return "negotiation reset";
    case kWaitingForLogout:
      return "waiting for logout";
    default:
      return "unknown reason";
  }
}

}  // namespace

void Session::Impl::handle_nop_in(const NopInPdu& pdu) {
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

void Session::Impl::handle_async_message(const AsyncMessagePdu& pdu, const std::byte* data) {
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
            [&](SessionObserver& observer) { observer.on_scsi_event(session_, pdu.lun, sense); });
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

void Session::Impl::logout_as_asked(const char* what, std::uint16_t limit_seconds) {
  begin_logout({ErrorCode::unavailable, fmt::format("{} asks for {}", where(), what)},
               LogoutSequence::asked_for(limit_seconds));
}

void Session::Impl::handle_reject(const RejectPdu& pdu, const std::byte* data) {
  answers_.take_status_numbers(pdu.numbers);
  if (pdu.data_bytes < kBhsBytes) {
    if (keep_alive_.ping_sent() && !queue_.busy() && functions_.used() == 0) {
      tolerated_.note(Tolerated::ping_rejected);  // there is nothing else that it can be of
      ping_answered();
      return;
    }
    fail_protocol("a Reject that does not say of what");
    return;
  }
  const PduHeader rejected = decode_header(BhsBytes{data, kBhsBytes});
  if (pdu.reason == kWaitingForLogout) {
    // What was rejected has not been executed, but its task will not be answered either; the logout
    // ends both.
    logout_as_asked("a logout", 1);
    return;
  }
  if (rejected.opcode == Opcode::nop_out) {
    // Too busy for it, or without a use for it, but alive.
    if (pdu.reason != kImmediateCommandReject) {
      tolerated_.note(Tolerated::ping_rejected);
    }
    if (rejected.initiator_task_tag == kPingTag && keep_alive_.ping_sent()) {
      ping_answered();
    }
    return;
  }
  if (const std::uint32_t tag = rejected.initiator_task_tag;
      functions_.is_sent(tag) && rejected.opcode == Opcode::task_management_request) {
    if (pdu.reason == kImmediateCommandReject) {
      functions_.defer(tag);  // it is sent again after a while
    } else if (pdu.reason == kCommandNotSupported) {
      function_answered(tag, FunctionOutcome::unsupported);
    } else {
      tolerated_.note(Tolerated::function_rejected);
      function_answered(tag, FunctionOutcome::refused);
    }
    return;
  }
  if (const TaskSlot* slot = queue_.find(rejected.initiator_task_tag);
      slot != nullptr && pdu.reason == kDataDigestError &&
      (rejected.opcode == Opcode::data_out || rejected.opcode == Opcode::scsi_command)) {
    // 7.8: the command's own answer follows, with the sense of a damaged transfer. Until then it is
    // in doubt.
    tolerated_.note(Tolerated::data_rejected);
    doubt_commands(slot->task->lun);
    return;
  }
  fail_protocol(fmt::format("a Reject of a {} with reason 0x{:02x} ({})",
                            to_string(rejected.opcode), pdu.reason, reject_reason(pdu.reason)));
}

void Session::Impl::handle_logout_response(const LogoutResponsePdu& pdu) {
  if (state_ != SessionState::in_logout || pdu.initiator_task_tag != kLogoutTag ||
      !logout_.sent()) {
    fail_protocol("a Logout Response that answers no Logout");
    return;
  }
  backoff_.demand(std::chrono::seconds{pdu.time2wait});
  leave_connection({ErrorCode::unavailable, fmt::format("logged out of {}", where())});
}

}  // namespace iscsi_blkback
