#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "initiator/session/session_impl.h"

namespace iscsi_blkback {
namespace {

// Data of a Data-In that has not arrived whole goes straight to its buffer from this size on;
// below, one copy out of the (hot) staging buffer is cheaper than a receive of its own.
constexpr std::size_t kDirectBytes = 16 * 1024;
// While a target sends such large ones, a receive takes no more than this behind what it is waiting
// for: the next header and what fits of a small answer. More would be copied twice.
constexpr std::size_t kBesideLargeBytes = 4 * 1024 + 512;
// Of what a target sends in one go, a receive takes a part: while it is looked at and the next
// commands are sent for it, the target has something to do, and what is left is there at once for
// the next receive, which need not wait. Taking all, each side would sleep while the other works.
// (One segment on the way through Linux has up to 64 KiB.)
constexpr std::size_t kPartBytes = 40 * 1024;
constexpr std::size_t kPartBytesPerCommand = 512;

}  // namespace

void Session::Impl::receive_more() {
  receive_at_most(kPartBytes + commands_in_flight_ * kPartBytesPerCommand);
}

void Session::Impl::receive_at_most(std::size_t limit_bytes) {
  std::array<iovec, 2> parts;
  std::size_t count = 0;
  if (direct_.remaining_bytes != 0) {
    parts[count++] = {.iov_base = direct_.destination, .iov_len = direct_.remaining_bytes};
  }
  const std::size_t room = received_.size() - received_end_;
  parts[count++] = {.iov_base = received_.data() + received_end_,
                    .iov_len = std::min(room, large_data_ ? kBesideLargeBytes : limit_bytes)};
  stream_->receive({parts.data(), count});
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
  const std::uint32_t were_in_flight = commands_in_flight_;
  const std::size_t arrived = count;
  answers_ = 0;
  if (direct_.remaining_bytes != 0) {
    const std::size_t taken = std::min(count, direct_.remaining_bytes);
    take_direct(taken);
    count -= taken;
  }
  received_end_ += count;
  if (!direct_.under_way || finish_direct_reception()) {
    parse_received();
  }
  if (!full_feature_phase()) {
    if (connection_active()) {
      receive_more();
    }
    return;
  }
  gather_policy_.received(arrived, answers_, were_in_flight, now);
  // After what is sent in this turn: the answers to it may be there then.
  receive_due_ = true;
  schedule_flush();
}

void Session::Impl::parse_received() {
  while (connection_active()) {
    const std::size_t available = received_end_ - received_begin_;
    if (available < kBhsBytes) {
      break;
    }
    const BhsBytes bytes{received_.data() + received_begin_, kBhsBytes};
    const PduHeader header = decode_header(bytes);
    const std::size_t data_at = header.data_offset(digests_);
    if (digests_.header) {
      // Before any other field is believed.
      if (available < data_at) {
        break;
      }
      if (!digest_follows({bytes.data(), data_at - kDigestBytes})) {
        fail_digest("header", header.opcode);
        return;
      }
    }
    const std::size_t limit =
        full_feature_phase() ? options_.max_recv_data_segment_length : kMaxLoginDataBytes;
    if (header.data_bytes > limit) {
      fail_protocol(std::string("a ") + to_string(header.opcode) +
                    " with more data than MaxRecvDataSegmentLength allows");
      return;
    }
    if (available < header.total_bytes(digests_)) {
      if (begin_direct_reception(bytes, header, available)) {
        return;
      }
      break;
    }
    if (digests_.data && header.data_bytes != 0 &&
        !digest_follows({bytes.data() + data_at, padded(header.data_bytes)})) {
      fail_digest("data", header.opcode);
      return;
    }
    if (header.opcode == Opcode::data_in) {
      large_data_ = header.data_bytes >= kDirectBytes;
    }
    received_begin_ += header.total_bytes(digests_);
    handle_pdu(bytes, header, bytes.data() + data_at);
  }
  // What is left is less than one PDU; with the staging buffer empty again, the next receive has
  // all of it and no PDU ever wraps.
  const std::size_t left = received_end_ - received_begin_;
  if (left != 0 && received_begin_ != 0) {
    std::memmove(received_.data(), received_.data() + received_begin_, left);
  }
  received_begin_ = 0;
  received_end_ = left;
}

bool Session::Impl::begin_direct_reception(BhsBytes bytes, const PduHeader& header,
                                           std::size_t available) {
  const std::size_t data_at = header.data_offset(digests_);
  if (header.opcode != Opcode::data_in || header.data_bytes < kDirectBytes ||
      !full_feature_phase() || available < data_at || available >= data_at + header.data_bytes) {
    return false;
  }
  const DataInPdu pdu = decode_data_in(bytes);
  if (const TaskSlot* meant = table_.find(pdu.initiator_task_tag);
      meant != nullptr && meant->task->data == nullptr) {
    large_data_ = false;
    return false;  // to be thrown away: the staging buffer will do
  }
  TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) {
    return true;  // the connection has failed
  }
  const std::size_t arrived = available - data_at;
  std::byte* destination = slot->task->data + pdu.buffer_offset;
  std::memcpy(destination, bytes.data() + data_at, arrived);
  large_data_ = true;
  direct_ = {.destination = destination,
             .remaining_bytes = header.data_bytes,
             .trailer_bytes = header.trailer_bytes(digests_),
             .under_way = true,
             .checksum = 0,
             .pdu = pdu};
  take_direct(arrived);
  received_begin_ = 0;
  received_end_ = 0;
  return true;
}

// So many bytes of the data have arrived at their destination. They are summed up at once, while
// they are in the cache.
void Session::Impl::take_direct(std::size_t count) {
  if (digests_.data) {
    direct_.checksum = crc32c({direct_.destination, count}, direct_.checksum);
  }
  direct_.destination += count;
  direct_.remaining_bytes -= count;
}

// Returns whether all of it is there; what follows the data is at the start of the staging buffer.
bool Session::Impl::finish_direct_reception() {
  if (direct_.remaining_bytes != 0 || received_end_ < direct_.trailer_bytes) {
    return false;
  }
  if (digests_.data) {
    const std::size_t padding_bytes = direct_.trailer_bytes - kDigestBytes;
    const std::byte* trailer = received_.data();
    if (!digest_is(crc32c({trailer, padding_bytes}, direct_.checksum), trailer + padding_bytes)) {
      fail_digest("data", Opcode::data_in);
      return false;
    }
  }
  received_begin_ = direct_.trailer_bytes;
  direct_.under_way = false;
  finish_data_in(direct_.pdu);
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
