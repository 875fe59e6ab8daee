// ReplyBatch: what the null target gives to one send: headers in memory of its own, data referred
// to where it lies in the medium. Its memory is kept from batch to batch. One thread.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

class ReplyBatch {
 public:
  // A connection stops answering at this size until the batch is sent.
  static constexpr std::size_t kEnoughBytes = 1024 * 1024;
  static constexpr std::size_t kEnoughParts = 900;  // below IOV_MAX

  [[nodiscard]] bool empty() const { return parts_.empty(); }
  [[nodiscard]] bool enough() const {
    return bytes_ >= kEnoughBytes || parts_.size() >= kEnoughParts;
  }
  [[nodiscard]] std::span<iovec> parts() { return parts_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  void clear() {
    parts_.clear();
    kept_.clear();
    bytes_ = chunk_ = chunk_bytes_ = 0;
  }

  // Memory of the batch's own, to be filled in.
  [[nodiscard]] std::byte* stage(std::size_t bytes) {
    if (chunks_.empty() || chunk_bytes_ + bytes > kChunkBytes) {
      chunk_ += chunks_.empty() ? 0 : 1;
      chunk_bytes_ = 0;
      if (chunk_ >= chunks_.size()) {
        chunks_.push_back(std::make_unique<std::byte[]>(kChunkBytes));
      }
    }
    std::byte* place = chunks_[chunk_].get() + chunk_bytes_;
    chunk_bytes_ += bytes;
    add(place, bytes);
    return place;
  }
  // Memory that stays as it is until the batch is sent.
  void refer(const std::byte* data, std::size_t bytes) {
    add(const_cast<std::byte*>(data), bytes);  // iovec has no const; a send only reads
  }
  // Data without a place of its own.
  [[nodiscard]] const std::vector<std::byte>& keep(std::vector<std::byte> data) {
    kept_.push_back(std::make_unique<std::vector<std::byte>>(std::move(data)));
    return *kept_.back();
  }

 private:
  static constexpr std::size_t kChunkBytes = 64 * 1024;

  void add(std::byte* base, std::size_t bytes) {
    bytes_ += bytes;
    if (!parts_.empty()) {
      iovec& last = parts_.back();
      if (static_cast<std::byte*>(last.iov_base) + last.iov_len == base) {
        last.iov_len += bytes;
        return;
      }
    }
    parts_.push_back({.iov_base = base, .iov_len = bytes});
  }

  std::vector<iovec> parts_;
  std::size_t bytes_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  std::size_t chunk_ = 0;
  std::size_t chunk_bytes_ = 0;
  std::vector<std::unique_ptr<std::vector<std::byte>>> kept_;
};

}  // namespace iscsi_blkback
