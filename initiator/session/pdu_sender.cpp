#include "initiator/session/pdu_sender.h"

#include <algorithm>

#include "initiator/session/session_tags.h"

namespace iscsi_blkback {

PduSender::PduSender(const SessionOptions& options, const NegotiatedParameters& negotiated,
                     SessionNumbers& numbers, CommandQueue& queue, const CommandWatchdog& watchdog)
    : negotiated_(negotiated),
      numbers_(numbers),
      queue_(queue),
      watchdog_(watchdog),
      bursts_(std::size_t{options.max_commands} * options.max_outstanding_r2t + 1),
      ping_replies_(kPingReplies) {}

bool PduSender::add_burst(const Burst& burst) {
  if (bursts_.full()) {
    return false;
  }
  bursts_.push(burst);
  return true;
}

bool PduSender::add_ping_reply(std::uint64_t lun, std::uint32_t target_transfer_tag) {
  if (ping_replies_.full()) {
    return false;
  }
  ping_replies_.push({.lun = lun, .target_transfer_tag = target_transfer_tag});
  return true;
}

void PduSender::begin_batch() {
  batch_.clear(negotiated_.digests);
  ++batch_number_;
}

void PduSender::stage_nop_out(std::uint64_t lun, std::uint32_t initiator_task_tag,
                              std::uint32_t target_transfer_tag) {
  encode(NopOutPdu{.immediate = true,
                   .data_bytes = 0,
                   .lun = lun,
                   .initiator_task_tag = initiator_task_tag,
                   .target_transfer_tag = target_transfer_tag,
                   .cmd_sn = numbers_.cmd_sn,
                   .exp_stat_sn = numbers_.exp_stat_sn()},
         batch_.add_header());
}

void PduSender::stage_ping_replies() {
  while (!ping_replies_.empty()) {
    const PingReply& reply = ping_replies_.front();
    stage_nop_out(reply.lun, kReservedTag, reply.target_transfer_tag);
    ping_replies_.pop();
  }
}

void PduSender::stage_ping() {
  stage_nop_out(0, kPingTag, kReservedTag);
}

void PduSender::stage_logout() {
  encode(LogoutRequestPdu{.reason = 0,
                          .initiator_task_tag = kLogoutTag,
                          .cid = 0,
                          .cmd_sn = numbers_.cmd_sn,
                          .exp_stat_sn = numbers_.exp_stat_sn()},
         batch_.add_header());
}

void PduSender::stage_bursts() {
  while (!bursts_.empty() && stage_burst(bursts_.front())) {
    bursts_.pop();
  }
}

// Returns whether the burst needs nothing more.
bool PduSender::stage_burst(Burst& burst) {
  TaskSlot* slot = queue_.find(burst.initiator_task_tag);
  if (slot == nullptr) {
    return true;  // the target answered without waiting for its data
  }
  const ScsiTask& task = *slot->task;
  while (burst.offset != burst.end) {
    const std::uint32_t bytes =
        std::min(burst.end - burst.offset, negotiated_.max_send_data_segment_length);
    if (!batch_.has_room(bytes)) {
      return false;
    }
    encode(DataOutPdu{.final = burst.offset + bytes == burst.end,
                      .data_bytes = bytes,
                      .lun = task.lun,
                      .initiator_task_tag = burst.initiator_task_tag,
                      .target_transfer_tag = burst.target_transfer_tag,
                      .exp_stat_sn = numbers_.exp_stat_sn(),
                      .data_sn = burst.data_sn++,
                      .buffer_offset = burst.offset},
           batch_.add_header());
    if (batch_.add_data(task.data + burst.offset, bytes)) {
      slot->last_batch = batch_number_;
    }
    burst.offset += bytes;
    slot->staged_bytes = std::max(slot->staged_bytes, burst.offset);
    slot->last_progress = watchdog_.scan();
  }
  if (burst.asked_for) {
    --slot->outstanding_r2ts;
  }
  return true;
}

bool PduSender::stage_commands() {
  bool given_up_before = false;
  const std::uint32_t at_most =
      std::min(negotiated_.first_burst_length, negotiated_.max_send_data_segment_length);
  while (bursts_.empty() && may_stage_command()) {
    const ScsiTask& next = queue_.next();
    if (!batch_.has_room(std::min(next.data_length_bytes, at_most))) {
      break;
    }
    given_up_before = given_up_before || next.silences != 0;
    stage_command(queue_.take_next());
  }
  return given_up_before;
}

void PduSender::stage_command(std::uint32_t tag) {
  TaskSlot& slot = *queue_.find(tag);
  const ScsiTask& task = *slot.task;
  const bool writes = task.direction == DataDirection::out;
  const std::uint32_t unasked =
      writes ? std::min(task.data_length_bytes, negotiated_.first_burst_length) : 0;
  const std::uint32_t immediate =
      negotiated_.immediate_data ? std::min(unasked, negotiated_.max_send_data_segment_length) : 0;
  const std::uint32_t unsolicited = negotiated_.initial_r2t ? immediate : unasked;

  encode(ScsiCommandPdu{.final = immediate == unsolicited,
                        .read = task.direction == DataDirection::in,
                        .write = writes,
                        .data_bytes = immediate,
                        .lun = task.lun,
                        .initiator_task_tag = tag,
                        .expected_data_bytes = task.data_length_bytes,
                        .cmd_sn = numbers_.cmd_sn,
                        .exp_stat_sn = numbers_.exp_stat_sn(),
                        .cdb = task.cdb},
         batch_.add_header());
  slot.cmd_sn = numbers_.cmd_sn++;
  slot.last_progress = watchdog_.scan();
  if (immediate != 0 && batch_.add_data(task.data, immediate)) {
    slot.last_batch = batch_number_;
  }
  slot.staged_bytes = immediate;
  slot.requested_bytes = unsolicited;
  ++commands_;
  if (immediate != unsolicited) {
    Burst burst{.initiator_task_tag = tag,
                .target_transfer_tag = kReservedTag,
                .offset = immediate,
                .end = unsolicited,
                .data_sn = 0,
                .asked_for = false};
    if (!stage_burst(burst)) {
      bursts_.push(burst);
    }
  }
}

void PduSender::forget_connection() {
  sending_ = false;
  bursts_.clear();
  ping_replies_.clear();
}

}  // namespace iscsi_blkback
