#include <algorithm>
#include <array>
#include <cstring>

#include "initiator/session_impl.h"

namespace iscsi_blkback {
namespace {

// Data of a Data-In that has not arrived whole goes straight to its buffer from this size on;
// below, one copy out of the (hot) staging buffer is cheaper than a receive of its own.
constexpr std::size_t kDirectBytes = 16 * 1024;

}  // namespace

void Session::Impl::receive_more() {
  std::array<iovec, 2> parts;
  std::size_t count = 0;
  if (direct_.remaining_bytes != 0) {
    parts[count++] = {.iov_base = direct_.destination, .iov_len = direct_.remaining_bytes};
  }
  parts[count++] = {.iov_base = received_.data() + received_end_,
                    .iov_len = received_.size() - received_end_};
  stream_->receive({parts.data(), count});
}

void Session::Impl::on_received(std::size_t count) noexcept {
  ++statistics_.receives;
  statistics_.bytes_received += count;
  last_received_ = reactor_.now();
  if (!connection_active()) {
    return;  // being reset; on_closed follows
  }
  if (direct_.remaining_bytes != 0) {
    const std::size_t taken = std::min(count, direct_.remaining_bytes);
    direct_.destination += taken;
    direct_.remaining_bytes -= taken;
    count -= taken;
    if (direct_.remaining_bytes == 0) {
      skip_bytes_ = direct_.padding_bytes;
      finish_data_in(direct_.pdu);
    }
  }
  received_end_ += count;
  parse_received();
  if (connection_active()) {
    receive_more();
  }
}

void Session::Impl::parse_received() {
  while (connection_active()) {
    const std::size_t skipped = std::min(skip_bytes_, received_end_ - received_begin_);
    skip_bytes_ -= skipped;
    received_begin_ += skipped;
    const std::size_t available = received_end_ - received_begin_;
    if (available < kBhsBytes) {
      break;
    }
    const BhsBytes bytes{received_.data() + received_begin_, kBhsBytes};
    const PduHeader header = decode_header(bytes);
    const std::size_t limit =
        full_feature_phase() ? options_.max_recv_data_segment_length : kMaxLoginDataBytes;
    if (header.data_bytes > limit) {
      fail_protocol(std::string("a ") + to_string(header.opcode) +
                    " with more data than MaxRecvDataSegmentLength allows");
      return;
    }
    if (available < header.total_bytes()) {
      if (begin_direct_reception(bytes, header, available)) {
        return;
      }
      break;
    }
    received_begin_ += header.total_bytes();
    handle_pdu(bytes, header, bytes.data() + kBhsBytes + header.ahs_bytes);
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
  const std::size_t data_at = kBhsBytes + header.ahs_bytes;
  if (header.opcode != Opcode::data_in || header.data_bytes < kDirectBytes ||
      !full_feature_phase() || available < data_at || available >= data_at + header.data_bytes) {
    return false;
  }
  const DataInPdu pdu = decode_data_in(bytes);
  TaskSlot* slot = accept_data_in(pdu);
  if (slot == nullptr) {
    return true;  // the connection has failed
  }
  const std::size_t arrived = available - data_at;
  std::byte* destination = slot->task->data + pdu.buffer_offset;
  std::memcpy(destination, bytes.data() + data_at, arrived);
  direct_ = {.destination = destination + arrived,
             .remaining_bytes = header.data_bytes - arrived,
             .padding_bytes = padded(header.data_bytes) - header.data_bytes,
             .pdu = pdu};
  received_begin_ = 0;
  received_end_ = 0;
  return true;
}

}  // namespace iscsi_blkback
