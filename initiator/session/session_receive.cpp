#include <fmt/format.h>

#include <array>

#include "initiator/session/session_impl.h"

namespace iscsi_blkback {
namespace {

// Of what a target sends in one go, a receive takes a part: while it is looked at and the next
// commands are sent for it, the target has something to do, and what is left is there at once for
// the next receive, which need not wait. Taking all, each side would sleep while the other works.
// (One segment on the way through Linux has up to 64 KiB.)
constexpr std::size_t kPartBytes = 40 * 1024;
constexpr std::size_t kPartBytesPerCommand = 512;

}  // namespace

void Session::Impl::receive_more() {
  receive_at_most(kPartBytes + queue_.in_flight() * kPartBytesPerCommand);
}

void Session::Impl::receive_at_most(std::size_t limit_bytes) {
  std::array<iovec, 2> parts;
  stream_->receive(receiver_.room(limit_bytes, parts));
}

void Session::Impl::on_received(std::size_t count) noexcept {
  ++statistics_.receives;
  statistics_.bytes_received += count;
  if (keep_alive_.waits_on()) [[unlikely]] {
    note_end_of_silence();
  }
  const TimePoint now = reactor_.turn_time();
  keep_alive_.on_received(now);
  gather_timer_.stop();
  if (!connection_active()) {
    return;  // being reset; on_closed follows
  }
  const std::uint32_t were_in_flight = queue_.in_flight();
  answers_ = 0;
  receiver_.arrived(count);
  take_received();
  if (!full_feature_phase()) {
    if (connection_active()) {
      receive_more();
    }
    return;
  }
  gather_policy_.received(count, answers_, were_in_flight, now);
  // After what is sent in this turn: the answers to it may be there then.
  receive_due_ = true;
  schedule_flush();
}

void Session::Impl::take_received() {
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
        finish_data_in(receiver_.large_data_in());
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
bool Session::Impl::begin_large_data_in(const IncomingPdu& received) {
  const DataInPdu pdu = decode_data_in(received.bytes());
  if (const TaskSlot* meant = queue_.find(pdu.initiator_task_tag);
      meant != nullptr && meant->task->data == nullptr) {
    receiver_.keep_staged();  // to be thrown away
    return false;
  }
  const TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) {
    return false;  // the connection has failed
  }
  receiver_.receive_into(slot->task->data + pdu.buffer_offset);
  return true;
}

// At error recovery level 0 a digest that is wrong ends the connection (RFC 7143 7.8): nothing is
// known of what was sent.
void Session::Impl::fail_digest(const char* which, Opcode opcode) {
  backoff_.blame(RepeatedEnds::Cause::broken_rule);
  fail_connection({ErrorCode::io,
                   fmt::format("a {} from {} arrived damaged (wrong {} digest); the network or a "
                               "network card alters data",
                               to_string(opcode), where(), which)});
}

}  // namespace iscsi_blkback
