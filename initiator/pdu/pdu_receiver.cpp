#include "initiator/pdu/pdu_receiver.h"

#include <algorithm>
#include <cstring>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kStagingBytes = 512 * 1024;
// Header, the largest additional header segments, padding and digests around the largest data
// segment.
constexpr std::size_t kPduOverheadBytes = kBhsBytes + 1020 + 4 + 2 * kDigestBytes;
// While a target sends large Data-Ins, a receive takes no more than this behind what it is waiting
// for: the next header and what fits of a small answer. More would be copied twice.
constexpr std::size_t kBesideLargeBytes = 4 * 1024 + 512;

}  // namespace

PduReceiver::PduReceiver(std::size_t max_data_bytes)
    : staging_(std::max(kStagingBytes, max_data_bytes + kPduOverheadBytes)) {}

void PduReceiver::start(std::size_t max_data_bytes) {
  digests_ = {};
  max_data_bytes_ = max_data_bytes;
  full_feature_phase_ = false;
  begin_ = end_ = 0;
  large_ = {};
}

void PduReceiver::enter_full_feature_phase(const Digests& digests, std::size_t max_data_bytes) {
  digests_ = digests;
  max_data_bytes_ = max_data_bytes;
  full_feature_phase_ = true;
}

std::span<const iovec> PduReceiver::room(std::size_t limit_bytes, std::array<iovec, 2>& parts) {
  std::size_t count = 0;
  if (large_.remaining_bytes != 0) {
    parts[count++] = {.iov_base = large_.destination, .iov_len = large_.remaining_bytes};
  }
  const std::size_t limit = large_before_ ? kBesideLargeBytes : limit_bytes;
  parts[count++] = {.iov_base = staging_.data() + end_,
                    .iov_len = std::min(staging_.size() - end_, limit)};
  return {parts.data(), count};
}

void PduReceiver::arrived(std::size_t count) {
  if (large_.remaining_bytes != 0) {
    const std::size_t taken = std::min(count, large_.remaining_bytes);
    take_large(taken);
    count -= taken;
  }
  end_ += count;
}

PduReceiver::Next PduReceiver::next(IncomingPdu& pdu) {
  if (large_.under_way) [[unlikely]] {
    return finish_large(pdu);
  }
  const std::size_t available = end_ - begin_;
  if (available < kBhsBytes) {
    move_to_front();
    return Next::needs_more;
  }
  pdu.begin = staging_.data() + begin_;
  pdu.header = decode_header(pdu.bytes());
  const PduHeader& header = pdu.header;
  const std::size_t data_at = header.data_offset(digests_);
  if (digests_.header) {
    // Before any other field is believed.
    if (available < data_at) {
      move_to_front();
      return Next::needs_more;
    }
    if (!digest_follows({pdu.begin, data_at - kDigestBytes})) {
      return Next::wrong_header_digest;
    }
  }
  if (header.data_bytes > max_data_bytes_) {
    return Next::too_long;
  }
  const std::size_t whole = header.total_bytes(digests_);
  if (available < whole) {
    if (is_large(header, available)) {
      return Next::large_data_in;
    }
    move_to_front();
    return Next::needs_more;
  }
  pdu.data = pdu.begin + data_at;
  if (digests_.data && header.data_bytes != 0 &&
      !digest_follows({pdu.data, padded(header.data_bytes)})) {
    return Next::wrong_data_digest;
  }
  if (header.opcode == Opcode::data_in) {
    large_before_ = header.data_bytes >= kLargeBytes;
  }
  begin_ += whole;
  return Next::pdu;
}

bool PduReceiver::is_large(const PduHeader& header, std::size_t available) const {
  const std::size_t data_at = header.data_offset(digests_);
  return header.opcode == Opcode::data_in && header.data_bytes >= kLargeBytes &&
         full_feature_phase_ && available >= data_at && available < data_at + header.data_bytes;
}

void PduReceiver::receive_into(std::byte* destination) {
  const BhsBytes bytes{staging_.data() + begin_, kBhsBytes};
  const PduHeader header = decode_header(bytes);
  const std::size_t data_at = header.data_offset(digests_);
  const std::size_t arrived = end_ - begin_ - data_at;
  std::memcpy(destination, bytes.data() + data_at, arrived);
  large_before_ = true;
  large_ = {.destination = destination,
            .remaining_bytes = header.data_bytes,
            .trailer_bytes = header.trailer_bytes(digests_),
            .under_way = true,
            .checksum = 0,
            .pdu = decode_data_in(bytes)};
  take_large(arrived);
  begin_ = 0;
  end_ = 0;
}

void PduReceiver::keep_staged() {
  large_before_ = false;
  move_to_front();
}

// So many bytes of the data have arrived at their destination. They are summed up at once, while
// they are in the cache.
void PduReceiver::take_large(std::size_t count) {
  if (digests_.data) {
    large_.checksum = crc32c({large_.destination, count}, large_.checksum);
  }
  large_.destination += count;
  large_.remaining_bytes -= count;
}

// What follows the data is at the start of the staging buffer.
PduReceiver::Next PduReceiver::finish_large(IncomingPdu& pdu) {
  if (large_.remaining_bytes != 0 || end_ < large_.trailer_bytes) {
    return Next::needs_more;
  }
  if (digests_.data) {
    const std::size_t padding_bytes = large_.trailer_bytes - kDigestBytes;
    const std::byte* trailer = staging_.data();
    if (!digest_is(crc32c({trailer, padding_bytes}, large_.checksum), trailer + padding_bytes)) {
      pdu.header.opcode = Opcode::data_in;
      return Next::wrong_data_digest;
    }
  }
  begin_ = large_.trailer_bytes;
  large_.under_way = false;
  return Next::large_data_in_complete;
}

void PduReceiver::move_to_front() {
  const std::size_t left = end_ - begin_;
  if (left != 0 && begin_ != 0) {
    std::memmove(staging_.data(), staging_.data() + begin_, left);
  }
  begin_ = 0;
  end_ = left;
}

}  // namespace iscsi_blkback
