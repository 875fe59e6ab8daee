// TransmitBatch: what one ByteStream::send carries: headers and small data copied into one
// contiguous staging buffer, larger data referred to where it lies. Built and sent once per reactor
// turn; its memory is fixed. Reactor thread.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "base/byte_stream.h"
#include "base/result.h"
#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

class TransmitBatch {
 public:
  static constexpr std::size_t kStagingBytes = 256 * 1024;
  // From here on, referring costs less than copying.
  static constexpr std::size_t kReferBytes = 4 * 1024;
  // A batch above this takes no further PDU, so that a ping does not wait behind many megabytes.
  static constexpr std::size_t kEnoughBytes = 1024 * 1024;

  TransmitBatch() : staging_(std::make_unique<std::byte[]>(kStagingBytes)) {}

  [[nodiscard]] bool empty() const { return part_count_ == 0; }
  [[nodiscard]] std::size_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] std::span<const iovec> parts() const { return {parts_.data(), part_count_}; }

  // Empties it for a connection that has these digests.
  void clear(Digests digests = {}) {
    digests_ = digests;
    unsealed_header_ = nullptr;
    staged_bytes_ = 0;
    total_bytes_ = 0;
    part_count_ = 0;
  }

  // Whether a PDU with this much data still fits.
  [[nodiscard]] bool has_room(std::size_t data_bytes) const {
    const std::size_t copied = data_bytes < kReferBytes ? padded(data_bytes) : 4;
    return total_bytes_ < kEnoughBytes &&
           staged_bytes_ + kBhsBytes + copied + 2 * kDigestBytes <= kStagingBytes &&
           part_count_ + 3 <= parts_.size();
  }

  // A header to be filled in; has_room() said yes for its data.
  [[nodiscard]] BhsBuffer add_header() {
    seal();
    std::byte* header = stage(kBhsBytes + digests_.header_bytes());
    unsealed_header_ = digests_.header ? header : nullptr;
    return BhsBuffer{header, kBhsBytes};
  }

  // The data segment of the last header, padded. Returns whether the batch refers to data, which
  // then stays untouched until the batch is sent.
  bool add_data(const std::byte* data, std::size_t bytes) {
    const std::size_t padding = padded(bytes) - bytes;
    if (bytes < kReferBytes) {
      if (bytes != 0) {
        std::byte* copy = stage(bytes + padding + digests_.data_bytes());
        std::memcpy(copy, data, bytes);
        std::memset(copy + bytes, 0, padding);
        if (digests_.data) {
          put_digest(crc32c({copy, bytes + padding}), copy + bytes + padding);
        }
      }
      return false;
    }
    add_part(const_cast<std::byte*>(data), bytes);  // iovec has no const; send() only reads
    if (const std::size_t trailer = padding + digests_.data_bytes(); trailer != 0) {
      std::byte* end = stage(trailer);
      std::memset(end, 0, padding);
      if (digests_.data) {
        put_digest(crc32c({end, padding}, crc32c({data, bytes})), end + padding);
      }
    }
    return true;
  }

  // After the last PDU: gives its header the digest, which covers what add_header()'s caller wrote.
  void seal() {
    if (unsealed_header_ != nullptr) {
      put_digest(crc32c({unsealed_header_, kBhsBytes}), unsealed_header_ + kBhsBytes);
      unsealed_header_ = nullptr;
    }
  }

 private:
  std::byte* stage(std::size_t bytes) {
    ISCSI_BLKBACK_ASSERT(staged_bytes_ + bytes <= kStagingBytes);
    std::byte* place = staging_.get() + staged_bytes_;
    staged_bytes_ += bytes;
    if (part_count_ != 0) {
      iovec& last = parts_[part_count_ - 1];
      if (static_cast<std::byte*>(last.iov_base) + last.iov_len == place) {
        last.iov_len += bytes;
        total_bytes_ += bytes;
        return place;
      }
    }
    add_part(place, bytes);
    return place;
  }

  void add_part(std::byte* base, std::size_t bytes) {
    ISCSI_BLKBACK_ASSERT(part_count_ < parts_.size());
    parts_[part_count_++] = {.iov_base = base, .iov_len = bytes};
    total_bytes_ += bytes;
  }

  Digests digests_;
  std::byte* unsealed_header_ = nullptr;  // its digest is still to be written
  std::unique_ptr<std::byte[]> staging_;
  std::size_t staged_bytes_ = 0;
  std::size_t total_bytes_ = 0;
  std::array<iovec, ByteStream::kMaxParts> parts_;
  std::size_t part_count_ = 0;
};

}  // namespace iscsi_blkback
