#include <algorithm>

#include "initiator/session/session_impl.h"
#include "initiator/session/session_tags.h"

namespace iscsi_blkback {

void Session::Impl::schedule_flush() {
  // Even while a send is under way: in the turn of that send this keeps the reactor from waiting
  // before on_sent has come. Later flush() finds nothing to do, and on_sent schedules it again.
  flush_.schedule();
}

// Fills one batch with everything that may be sent now, in the order: answers to the target, data
// that it waits for, new commands as far as its window and our table allow.
void Session::Impl::flush() {
  if (!full_feature_phase()) {
    return;
  }
  if (!sending_ && !logout_.sent()) {  // 11.14: nothing follows a Logout
    send_batch();
  }
  if (!receive_due_) {
    return;
  }
  receive_due_ = false;
  // A receive without an answer has brought a part of one: the rest is on its way.
  const std::size_t low_water = answers_ != 0 && !receiver_.in_large_data_in()
                                    ? gather_policy_.low_water_bytes(queue_.in_flight())
                                    : 1;
  stream_->set_low_water(low_water);
  if (low_water == 1) {
    receive_more();
  } else {
    gather_timer_.start_at(reactor_.turn_time() + GatherPolicy::kPatience);
    receive_at_most(~std::size_t{0});
  }
}

void Session::Impl::send_batch() {
  batch_.clear(negotiated_.digests);
  ++batch_number_;
  stage_control_pdus();
  if (!logout_.sent()) {
    stage_bursts();
    stage_commands();
  }
  if (batch_.empty()) {
    return;
  }
  batch_.seal();
  sending_ = true;
  ++statistics_.sends;
  statistics_.bytes_sent += batch_.total_bytes();
  stream_->send(batch_.parts());
  if (!bursts_.empty() || may_stage_command()) {
    schedule_flush();  // there was more than a batch takes; on_sent shall come soon
  }
}

void Session::Impl::stage_control_pdus() {
  while (!ping_replies_.empty()) {
    const PingReply& reply = ping_replies_.front();
    encode(NopOutPdu{.immediate = true,
                     .data_bytes = 0,
                     .lun = reply.lun,
                     .initiator_task_tag = kReservedTag,
                     .target_transfer_tag = reply.target_transfer_tag,
                     .cmd_sn = numbers_.cmd_sn,
                     .exp_stat_sn = numbers_.exp_stat_sn()},
           batch_.add_header());
    ping_replies_.pop();
  }
  if (keep_alive_.take_queued()) {
    encode(NopOutPdu{.immediate = true,
                     .data_bytes = 0,
                     .lun = 0,
                     .initiator_task_tag = kPingTag,
                     .target_transfer_tag = kReservedTag,
                     .cmd_sn = numbers_.cmd_sn,
                     .exp_stat_sn = numbers_.exp_stat_sn()},
           batch_.add_header());
  }
  functions_.stage(batch_);
  if (logout_.due(queue_.busy())) {
    logout_.send(reactor_.now(), options_.logout_timeout);
    start_tick();
    encode(LogoutRequestPdu{.reason = 0,
                            .initiator_task_tag = kLogoutTag,
                            .cid = 0,
                            .cmd_sn = numbers_.cmd_sn,
                            .exp_stat_sn = numbers_.exp_stat_sn()},
           batch_.add_header());
  }
}

void Session::Impl::stage_bursts() {
  while (!bursts_.empty() && stage_burst(bursts_.front())) {
    bursts_.pop();
  }
}

// Returns whether the burst needs nothing more.
bool Session::Impl::stage_burst(DataOutBurst& burst) {
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

// There is one, with a slot for it, within the target's window.
bool Session::Impl::may_stage_command() const {
  return queue_.has_next() && numbers_.window_open();
}

void Session::Impl::stage_commands() {
  // A burst that did not fit goes before any new command.
  while (bursts_.empty() && may_stage_command()) {
    const std::uint32_t at_most =
        std::min(negotiated_.first_burst_length, negotiated_.max_send_data_segment_length);
    const ScsiTask& next = queue_.next();
    if (!batch_.has_room(std::min(next.data_length_bytes, at_most))) {
      return;
    }
    stage_command(queue_.take_next());
  }
}

void Session::Impl::stage_command(std::uint32_t tag) {
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
  if (task.silences != 0 && keep_alive_.ping_outstanding()) [[unlikely]] {
    ask_for_peer();
  }
  if (batch_.add_data(task.data, immediate)) {
    slot.last_batch = batch_number_;
  }
  slot.staged_bytes = immediate;
  slot.requested_bytes = unsolicited;
  ++statistics_.commands;
  if (immediate != unsolicited) {
    DataOutBurst burst{.initiator_task_tag = tag,
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

void Session::Impl::queue_ping() {
  keep_alive_.queue_ping(reactor_.now());
  ask_for_peer();
  schedule_flush();
}

}  // namespace iscsi_blkback
