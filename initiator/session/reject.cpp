#include "initiator/session/reject.h"

#include <fmt/format.h>

#include "initiator/session/session_tags.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint8_t kDataDigestError = 0x02;  // reasons, 11.17.1
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

Reject::Verdict Reject::verdict(const Facts& facts) const {
  if (!rejected_) {
    if (facts.ping_sent && !facts.others_outstanding) {
      // There is nothing else that it can be of.
      return {Meaning::ping_answered, Tolerated::ping_rejected};
    }
    return {Meaning::broken_rule, std::nullopt};
  }
  if (reason_ == kWaitingForLogout) {
    return {Meaning::logout, std::nullopt};
  }
  const Opcode opcode = rejected_->opcode;
  if (opcode == Opcode::nop_out) {
    Verdict of_ping;
    if (reason_ != kImmediateCommandReject) {
      of_ping.tolerated = Tolerated::ping_rejected;
    }
    if (tag() == kPingTag && facts.ping_sent) {
      of_ping.meaning = Meaning::ping_answered;
    }
    return of_ping;
  }
  if (opcode == Opcode::task_management_request && facts.is_function) {
    if (reason_ == kImmediateCommandReject) {
      return {Meaning::function_deferred, std::nullopt};
    }
    if (reason_ == kCommandNotSupported) {
      return {Meaning::function_unsupported, std::nullopt};
    }
    return {Meaning::function_refused, Tolerated::function_rejected};
  }
  if ((opcode == Opcode::data_out || opcode == Opcode::scsi_command) && facts.is_command &&
      reason_ == kDataDigestError) {
    return {Meaning::data_damaged, Tolerated::data_rejected};
  }
  return {Meaning::broken_rule, std::nullopt};
}

std::string Reject::to_string() const {
  if (!rejected_) {
    return "a Reject that does not say of what";
  }
  return fmt::format("a Reject of a {} with reason 0x{:02x} ({})",
                     iscsi_blkback::to_string(rejected_->opcode), reason_, reject_reason(reason_));
}

}  // namespace iscsi_blkback
