// What a Reject (RFC 7143 11.17) means: a target's word that it has not taken a PDU of ours. Decisions
// over what it says and what is outstanding; its Session carries them out. Pure.
//
// Most PDUs that may be rejected are known to have been wrong, and the connection with them. Others
// were right, and the target has no room for them or no use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "initiator/pdu/pdu.h"
#include "initiator/session/tolerated.h"

namespace iscsi_blkback {

class Reject {
 public:
  // data: pdu.data_bytes of it, the header of what is rejected, with which some targets do without.
  Reject(const RejectPdu& pdu, const std::byte* data) : reason_(pdu.reason) {
    if (pdu.data_bytes >= kBhsBytes) {
      rejected_ = decode_header(BhsBytes{data, kBhsBytes});
    }
  }

  // Of what is rejected; kReservedTag where that is not said.
  [[nodiscard]] std::uint32_t tag() const {
    return rejected_ ? rejected_->initiator_task_tag : kReservedTag;
  }

  struct Facts {
    bool ping_sent = false;           // and not answered
    bool others_outstanding = false;  // commands or functions
    bool is_function = false;         // tag() names one that is at the target
    bool is_command = false;          // likewise
  };
  enum class Meaning : std::uint8_t {
    nothing,
    ping_answered,  // too busy for it, or without a use for it, but alive
    // What was rejected has not been executed, but its task will not be answered either; the logout
    // that the target wants ends both.
    logout,
    function_deferred,  // it is sent again after a while
    function_unsupported,
    function_refused,
    data_damaged,  // 7.8: the command's own answer follows, with the sense of a damaged transfer
    broken_rule,
  };
  struct Verdict {
    Meaning meaning = Meaning::nothing;
    std::optional<Tolerated> tolerated;  // to be noted
  };
  [[nodiscard]] Verdict verdict(const Facts& facts) const;

  // "a Reject of a Data-Out with reason 0x02 (data digest error)".
  [[nodiscard]] std::string to_string() const;

 private:
  std::uint8_t reason_;
  std::optional<PduHeader> rejected_;
};

}  // namespace iscsi_blkback
