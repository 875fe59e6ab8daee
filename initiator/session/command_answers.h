// CommandAnswers: what the target's PDUs mean for the commands that are at it: Data-In, SCSI
// Response and R2T, held against what the command's slot knows. What Linux's initiator takes without
// harm to data is taken, too (see tolerated.h). Part of a Session, which owns it; reactor thread.
//
// An error of a call here is ErrorCode::protocol: the target has broken a rule that commands depend
// on, and the connection has to go.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/reactor.h"
#include "base/result.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/pdu.h"
#include "initiator/session/command_queue.h"
#include "initiator/session/command_watchdog.h"
#include "initiator/session/pdu_sender.h"
#include "initiator/session/session_numbers.h"
#include "initiator/session/tolerated.h"

namespace iscsi_blkback {

class CommandAnswers {
 public:
  // What is referred to outlives it. flush: something may be sent now.
  CommandAnswers(CommandQueue& queue, PduSender& sender, SessionNumbers& numbers,
                 const CommandWatchdog& watchdog, const NegotiatedParameters& negotiated,
                 ToleratedRules& tolerated, Deferred& flush)
      : queue_(queue),
        sender_(sender),
        numbers_(numbers),
        watchdog_(watchdog),
        negotiated_(negotiated),
        tolerated_(tolerated),
        flush_(flush) {}

  // Of a PDU that has a StatSN of its own, and of one that has not.
  void take_status_numbers(const TargetNumbers& numbers);
  void take_window(const TargetNumbers& numbers);

  // data: pdu.data_bytes of it.
  [[nodiscard]] Result<void> take_data_in(const DataInPdu& pdu, const std::byte* data);
  // The same in two steps, for data that goes straight to its destination. Null: nobody wants it any
  // more; it goes to take_data_in() later.
  [[nodiscard]] Result<std::byte*> begin_data_in(const DataInPdu& pdu);
  void finish_data_in(const DataInPdu& pdu);
  [[nodiscard]] Result<void> take_r2t(const R2tPdu& pdu);
  // The command's outcome is known; it completes with finish().
  [[nodiscard]] Result<TaskSlot*> take_response(const ScsiResponsePdu& pdu, const std::byte* data);

  // Its outcome is set.
  void finish(TaskSlot& slot) {
    ++finished_;
    queue_.finish(slot, sender_.refers_to(slot));
  }
  [[nodiscard]] std::uint32_t finished() const { return finished_; }  // commands, ever; wraps

 private:
  // Null: it is refused.
  [[nodiscard]] TaskSlot* accept_data_in(const DataInPdu& pdu);
  [[nodiscard]] Error why_refused(const DataInPdu& pdu);
  void finish_data_in(TaskSlot& slot, const DataInPdu& pdu);
  static void set_transferred(TaskSlot& slot, bool underflow, bool overflow,
                              std::uint32_t residual);

  CommandQueue& queue_;
  PduSender& sender_;
  SessionNumbers& numbers_;
  const CommandWatchdog& watchdog_;
  const NegotiatedParameters& negotiated_;
  ToleratedRules& tolerated_;
  Deferred& flush_;
  std::uint32_t finished_ = 0;
};

}  // namespace iscsi_blkback
