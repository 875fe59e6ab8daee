#include <fmt/format.h>

#include <array>

#include "initiator/session/session_impl.h"

namespace iscsi_blkback {

void Session::Impl::receive(std::size_t limit_bytes) {
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
  pacer_.stop_waiting();
  if (!connection_active()) {
    return;  // being reset; on_closed follows
  }
  const std::uint32_t were_in_flight = queue_.in_flight();
  const std::uint32_t were_finished = answers_.finished();
  receiver_.arrived(count);
  take_received();
  if (!full_feature_phase()) {
    if (connection_active()) {
      receive(ReceivePacer::part_bytes(0));
    }
    return;
  }
  pacer_.received(count, answers_.finished() - were_finished, were_in_flight, now);
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
        answers_.finish_data_in(receiver_.large_data_in());
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
  const Result<std::byte*> destination = answers_.begin_data_in(decode_data_in(received.bytes()));
  if (!destination) {
    fail_protocol(destination.error().message);
    return false;
  }
  if (*destination == nullptr) {
    receiver_.keep_staged();
    return false;
  }
  receiver_.receive_into(*destination);
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
