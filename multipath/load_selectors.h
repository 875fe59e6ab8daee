// The selectors that look at what is under way on a path now: queue-length counts requests,
// service-time counts bytes. Equal paths take turns. Reactor thread.
//
// dm-mpath's service-time can weigh a path's bytes by its relative throughput; multipath-tools
// never sets one, so there, as here, it is the least bytes in flight that decides.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "multipath/path_selector.h"

namespace iscsi_blkback {

// Load: what a request adds to its path, as a function of its length in bytes.
template <std::uint64_t (*Load)(std::uint32_t length_bytes)>
class LeastLoadSelector final : public PathSelector {
 public:
  void add_path(std::uint32_t index) override {
    ISCSI_BLKBACK_ASSERT(index < kMaxPaths);
    place_[index] = static_cast<std::uint8_t>(paths_.size());
    paths_.push_back({index, 0});
    last_ = paths_.size() - 1;  // the first choice among equals is the first path
  }

  [[nodiscard]] std::uint32_t select(PathMask eligible, std::uint32_t /*length_bytes*/,
                                     TimePoint /*now*/) override {
    last_ = best_in_turn(paths_, eligible, last_, [](const Entry& one, const Entry& other) {
      return one.load < other.load;
    });
    return paths_[last_].index;
  }

  void on_started(std::uint32_t index, std::uint32_t length_bytes) override {
    paths_[place_[index]].load += Load(length_bytes);
  }
  void on_ended(std::uint32_t index, std::uint32_t length_bytes, TimePoint /*started*/,
                TimePoint /*now*/) override {
    paths_[place_[index]].load -= Load(length_bytes);
  }

 private:
  struct Entry {
    std::uint32_t index;
    std::uint64_t load;
  };

  std::vector<Entry> paths_;
  std::array<std::uint8_t, kMaxPaths> place_{};  // of a path in paths_
  std::size_t last_ = 0;
};

[[nodiscard]] constexpr std::uint64_t one_request(std::uint32_t /*length_bytes*/) {
  return 1;
}
[[nodiscard]] constexpr std::uint64_t its_bytes(std::uint32_t length_bytes) {
  return length_bytes;
}

using QueueLengthSelector = LeastLoadSelector<&one_request>;
using ServiceTimeSelector = LeastLoadSelector<&its_bytes>;

}  // namespace iscsi_blkback
