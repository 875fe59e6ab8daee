// The selectors that look at what is under way on a path now: queue-length at requests,
// service-time at bytes, weighed by the path's throughput relative to the others' (which
// multipath-tools always leaves at 1). Equal paths take turns. Reactor thread.
#pragma once

#include <array>
#include <cstdint>

#include "multipath/groups/path_selector.h"
#include "multipath/groups/path_turns.h"

namespace iscsi_blkback {

class QueueLengthSelector final : public PathSelector {
 public:
  void add_path(std::uint32_t index) override { turns_.add(index); }
  void remove_path(std::uint32_t index) override { turns_.remove(index); }
  [[nodiscard]] std::uint32_t select(PathMask eligible, PathLoads loads,
                                     std::uint32_t /*length_bytes*/, TimePoint /*now*/) override {
    return turns_.choose(eligible, [loads](std::uint32_t one, std::uint32_t other) {
      return loads[one].requests < loads[other].requests;
    });
  }

 private:
  PathTurns turns_;
};

class ServiceTimeSelector final : public PathSelector {
 public:
  ServiceTimeSelector() { weights_.fill(1); }

  void add_path(std::uint32_t index) override { turns_.add(index); }
  void remove_path(std::uint32_t index) override {
    turns_.remove(index);
    weights_[index] = 1;
  }
  void set_weight(std::uint32_t index, std::uint32_t weight) override { weights_[index] = weight; }
  [[nodiscard]] std::uint32_t select(PathMask eligible, PathLoads loads, std::uint32_t length_bytes,
                                     TimePoint /*now*/) override {
    return turns_.choose(eligible, [=, this](std::uint32_t one, std::uint32_t other) {
      return better(loads[one].bytes, weights_[one], loads[other].bytes, weights_[other],
                    length_bytes);
    });
  }

 private:
  // dm-mpath's comparison: which path would be through with the request first.
  [[nodiscard]] static bool better(std::uint64_t bytes_of_one, std::uint64_t weight_of_one,
                                   std::uint64_t bytes_of_other, std::uint64_t weight_of_other,
                                   std::uint64_t added) {
    if (weight_of_one == weight_of_other) {
      return bytes_of_one < bytes_of_other;
    }
    if (weight_of_one == 0 || weight_of_other == 0) {
      return weight_of_other == 0;
    }
    const std::uint64_t time_of_one = (bytes_of_one + added) * weight_of_other;
    const std::uint64_t time_of_other = (bytes_of_other + added) * weight_of_one;
    return time_of_one != time_of_other ? time_of_one < time_of_other
                                        : weight_of_one > weight_of_other;
  }

  PathTurns turns_;
  std::array<std::uint32_t, kMaxPaths> weights_;
};

}  // namespace iscsi_blkback
