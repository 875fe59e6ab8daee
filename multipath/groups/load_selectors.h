// The selectors that look at what is under way on a path now: queue-length counts requests,
// service-time counts bytes and weighs them by the path's throughput relative to the others' (which
// multipath-tools always leaves at 1). Equal paths take turns. Reactor thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "multipath/groups/path_selector.h"

namespace iscsi_blkback {

// Load: what a request adds to its path, as a function of its length in bytes. Weighted: paths
// differ in throughput.
template <std::uint64_t (*Load)(std::uint32_t length_bytes), bool Weighted>
class LeastLoadSelector final : public PathSelector {
 public:
  void add_path(std::uint32_t index) override {
    ISCSI_BLKBACK_ASSERT(index < kMaxPaths);
    place_[index] = static_cast<std::uint8_t>(paths_.size());
    paths_.push_back({.index = index});
    last_ = paths_.size() - 1;  // the first choice among equals is the first path
  }

  void remove_path(std::uint32_t index) override {
    remove_entry(paths_, place_, index);
    last_ = paths_.empty() ? 0 : paths_.size() - 1;
  }

  void set_weight(std::uint32_t index, std::uint32_t weight) override {
    paths_[place_[index]].weight = weight;
  }
  void set_load(std::uint32_t index, std::uint32_t requests, std::uint64_t bytes) override {
    paths_[place_[index]].load = Weighted ? bytes : requests;
  }

  [[nodiscard]] std::uint32_t select(PathMask eligible, std::uint32_t length_bytes,
                                     TimePoint /*now*/) override {
    last_ = best_in_turn(paths_, eligible, last_, [=](const Entry& one, const Entry& other) {
      return better(one, other, Load(length_bytes));
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
    std::uint32_t weight = 1;
    std::uint64_t load = 0;
  };

  // dm-mpath's comparison: which path would be through with the request first.
  static bool better(const Entry& one, const Entry& other, std::uint64_t added) {
    if (!Weighted || one.weight == other.weight) {
      return one.load < other.load;
    }
    if (one.weight == 0 || other.weight == 0) {
      return other.weight == 0;
    }
    const std::uint64_t time_of_one = (one.load + added) * other.weight;
    const std::uint64_t time_of_other = (other.load + added) * one.weight;
    return time_of_one != time_of_other ? time_of_one < time_of_other : one.weight > other.weight;
  }

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

using QueueLengthSelector = LeastLoadSelector<&one_request, false>;
using ServiceTimeSelector = LeastLoadSelector<&its_bytes, true>;

}  // namespace iscsi_blkback
