// FixedQueue: a first-in first-out ring whose memory is taken once. Single-threaded.
#pragma once

#include <cstddef>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

template <class T>
class FixedQueue {
 public:
  explicit FixedQueue(std::size_t capacity) : items_(capacity) {}

  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] bool full() const { return count_ == items_.size(); }
  [[nodiscard]] T& front() {
    ISCSI_BLKBACK_ASSERT(!empty());
    return items_[first_];
  }

  void push(const T& item) {
    ISCSI_BLKBACK_ASSERT(!full());
    items_[(first_ + count_) % items_.size()] = item;
    ++count_;
  }

  void pop() {
    ISCSI_BLKBACK_ASSERT(!empty());
    first_ = (first_ + 1) % items_.size();
    --count_;
  }

  void clear() { first_ = count_ = 0; }

 private:
  std::vector<T> items_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace iscsi_blkback
