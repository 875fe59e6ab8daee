#include "multipath/groups/round_robin_selector.h"

#include <algorithm>

#include "base/result.h"

namespace iscsi_blkback {

RoundRobinSelector::RoundRobinSelector(std::uint32_t rr_min_io)
    : rr_min_io_(std::max(rr_min_io, 1U)) {
  weights_.fill(1);
}

void RoundRobinSelector::add_path(std::uint32_t index) {
  ISCSI_BLKBACK_ASSERT(index < kMaxPaths);
  paths_.push_back(index);
}

// The path behind it is the next one.
void RoundRobinSelector::remove_path(std::uint32_t index) {
  const auto removed = std::find(paths_.begin(), paths_.end(), index);
  ISCSI_BLKBACK_ASSERT(removed != paths_.end());
  const auto place = static_cast<std::size_t>(removed - paths_.begin());
  paths_.erase(removed);
  weights_[index] = 1;
  if (place == current_) {
    left_ = 0;
  }
  if (place <= current_ && current_ > 0) {
    --current_;
  } else if (place == current_) {
    started_ = false;  // the first of all was the current one
  }
}

void RoundRobinSelector::set_weight(std::uint32_t index, std::uint32_t weight) {
  weights_[index] = std::max(weight, 1U);
}

std::uint32_t RoundRobinSelector::select(PathMask eligible, PathLoads /*loads*/,
                                         std::uint32_t /*length_bytes*/, TimePoint /*now*/) {
  if (left_ > 0 && (eligible & path_bit(paths_[current_])) != 0) {
    --left_;
    return paths_[current_];
  }
  // left_ is 0 before the very first choice too; that one starts at the first path.
  std::size_t at = started_ ? current_ : paths_.size() - 1;
  for (std::size_t step = 0; step < paths_.size(); ++step) {
    at = at + 1 < paths_.size() ? at + 1 : 0;
    if ((eligible & path_bit(paths_[at])) != 0) {
      started_ = true;
      current_ = at;
      left_ = rr_min_io_ * weights_[paths_[at]] - 1;
      return paths_[at];
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "no path of the group is eligible");
  return 0;
}

}  // namespace iscsi_blkback
