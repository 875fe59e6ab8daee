// HistoricalServiceTimeSelector: estimates how long a path takes for one request, from those that
// it has answered, and picks the path whose queue would be through first. Slow and fast paths can
// then share a group. Reactor thread.
//
// After dm-mpath's historical-service-time (dm-ps-historical-service-time.c): a request's service
// time is counted from its start or the end of the one before, whichever is later (as if the path
// served one at a time); the estimate forgets the past the faster, the longer a request took. A
// path that was not used for as long as its estimate times its requests is stale: it is tried
// again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "multipath/groups/path_selector.h"
#include "multipath/groups/path_turns.h"

namespace iscsi_blkback {

class HistoricalServiceTimeSelector final : public PathSelector {
 public:
  HistoricalServiceTimeSelector();

  void add_path(std::uint32_t index) override { turns_.add(index); }
  void remove_path(std::uint32_t index) override {
    turns_.remove(index);
    estimates_[index] = {};
  }
  [[nodiscard]] std::uint32_t select(PathMask eligible, PathLoads loads, std::uint32_t length_bytes,
                                     TimePoint now) override;
  void on_ended(std::uint32_t index, TimePoint started, TimePoint now) override;

  // Of one request; 0: nothing is known.
  [[nodiscard]] std::uint64_t estimate_ns(std::uint32_t index) const {
    return estimates_[index].time_ns;
  }

 private:
  struct Estimate {
    std::uint64_t time_ns = 0;
    std::uint32_t from = 0;  // requests, at most kMaxEstimatedFrom
    TimePoint last_end{};
    TimePoint stale_at{};
  };
  static constexpr std::uint32_t kMaxEstimatedFrom = 64;
  // 16.8 ms each: one that takes over 1.06 s replaces all that was known.
  static constexpr unsigned kBucketShift = 24;
  static constexpr std::size_t kBuckets = 64;

  // A path as it is compared with others.
  struct Candidate {
    const Estimate& estimate;
    std::uint64_t outstanding;
  };
  [[nodiscard]] static bool better(const Candidate& one, const Candidate& other, TimePoint now);

  PathTurns turns_;
  std::array<Estimate, kMaxPaths> estimates_{};
  std::array<std::uint32_t, kBuckets> weights_{};  // of the past, in 1024ths
};

}  // namespace iscsi_blkback
