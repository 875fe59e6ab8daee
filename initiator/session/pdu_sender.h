// PduSender: what goes into the one send of a reactor turn. Its Session begins a batch, has staged
// what may go, in order of urgency, and gives the parts to the stream; until that has sent them
// nothing else is. Part of a Session, which owns it; reactor thread.
#pragma once

#include <cstdint>
#include <span>

#include "initiator/login/session_options.h"
#include "initiator/pdu/transmit_batch.h"
#include "initiator/session/command_queue.h"
#include "initiator/session/command_watchdog.h"
#include "initiator/session/fixed_queue.h"
#include "initiator/session/session_numbers.h"

namespace iscsi_blkback {

class PduSender {
 public:
  // Data of one burst that is still to be sent: unsolicited, or asked for by an R2T.
  struct Burst {
    std::uint32_t initiator_task_tag = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t offset = 0;
    std::uint32_t end = 0;
    std::uint32_t data_sn = 0;
    bool asked_for = false;  // by an R2T
  };

  // What is referred to outlives it.
  PduSender(const SessionOptions& options, const NegotiatedParameters& negotiated,
            SessionNumbers& numbers, CommandQueue& queue, const CommandWatchdog& watchdog);

  // To be sent with a later batch. False: there are far too many of them already.
  [[nodiscard]] bool add_burst(const Burst& burst);
  [[nodiscard]] bool add_ping_reply(std::uint64_t lun, std::uint32_t target_transfer_tag);

  void begin_batch();
  [[nodiscard]] TransmitBatch& batch() { return batch_; }
  void stage_ping_replies();
  void stage_ping();
  void stage_logout();
  // As much as there is room for.
  void stage_bursts();
  // New commands, as far as the target's window, the slots and the room allow; none before a burst
  // that did not fit. Returns whether one of them was given up for silence before.
  [[nodiscard]] bool stage_commands();
  [[nodiscard]] std::uint64_t commands() const { return commands_; }  // staged, ever
  // More could go than is in the batch.
  [[nodiscard]] bool has_more() const { return !bursts_.empty() || may_stage_command(); }

  // Something is given to the stream: the batch, or a login's request.
  void sends() { sending_ = true; }
  void on_sent() { sending_ = false; }
  [[nodiscard]] bool sending() const { return sending_; }
  // What is being sent refers to the task's data.
  [[nodiscard]] bool refers_to(const TaskSlot& slot) const {
    return sending_ && slot.last_batch == batch_number_;
  }

  // The connection is gone.
  void forget_connection();

 private:
  struct PingReply {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = 0;
  };
  static constexpr std::size_t kPingReplies = 16;

  void stage_nop_out(std::uint64_t lun, std::uint32_t initiator_task_tag,
                     std::uint32_t target_transfer_tag);
  [[nodiscard]] bool stage_burst(Burst& burst);
  // There is one, with a slot for it, within the target's window.
  [[nodiscard]] bool may_stage_command() const {
    return queue_.has_next() && numbers_.window_open();
  }
  void stage_command(std::uint32_t tag);

  const NegotiatedParameters& negotiated_;
  SessionNumbers& numbers_;
  CommandQueue& queue_;
  const CommandWatchdog& watchdog_;
  TransmitBatch batch_;
  std::uint64_t batch_number_ = 0;
  bool sending_ = false;
  FixedQueue<Burst> bursts_;
  FixedQueue<PingReply> ping_replies_;
  std::uint64_t commands_ = 0;
};

}  // namespace iscsi_blkback
