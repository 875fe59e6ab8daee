// PathTurns: a selector's paths in the order in which they were added, and which of them was chosen
// last, so that equal paths take turns. Part of a selector. Reactor thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

class PathTurns {
 public:
  // The next choice among equals is the first path.
  void add(std::uint32_t index) {
    ISCSI_BLKBACK_ASSERT(index < kMaxPaths);
    paths_.push_back(index);
    last_ = paths_.size() - 1;
  }
  void remove(std::uint32_t index) {
    paths_.erase(std::find(paths_.begin(), paths_.end(), index));
    last_ = paths_.empty() ? 0 : paths_.size() - 1;
  }

  // The best of the eligible paths by better(one, other), of equal ones the first behind the last
  // choice. At least one of the paths is eligible.
  template <typename Better>
  [[nodiscard]] std::uint32_t choose(PathMask eligible, Better better) {
    std::size_t best = paths_.size();
    std::size_t at = last_;
    for (std::size_t step = 0; step < paths_.size(); ++step) {
      at = at + 1 < paths_.size() ? at + 1 : 0;
      if ((eligible & path_bit(paths_[at])) != 0 &&
          (best == paths_.size() || better(paths_[at], paths_[best]))) {
        best = at;
      }
    }
    ISCSI_BLKBACK_ASSERT(best != paths_.size() && "no path of the group is eligible");
    last_ = best;
    return paths_[best];
  }

 private:
  std::vector<std::uint32_t> paths_;
  std::size_t last_ = 0;  // place in paths_
};

}  // namespace iscsi_blkback
