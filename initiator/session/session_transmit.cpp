#include "initiator/session/session_impl.h"

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

void Session::Impl::send_batch() {
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

void Session::Impl::queue_ping() {
  keep_alive_.queue_ping(reactor_.now());
  ask_for_peer();
  schedule_flush();
}

}  // namespace iscsi_blkback
