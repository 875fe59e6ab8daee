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
#include <cstdint>
#include <vector>

#include "multipath/groups/path_selector.h"

namespace iscsi_blkback {

class HistoricalServiceTimeSelector final : public PathSelector {
 public:
  HistoricalServiceTimeSelector();

  void add_path(std::uint32_t index) override;
  void remove_path(std::uint32_t index) override;
  void set_load(std::uint32_t index, std::uint32_t requests, std::uint64_t /*bytes*/) override {
    paths_[place_[index]].outstanding = requests;
  }
  [[nodiscard]] std::uint32_t select(PathMask eligible, std::uint32_t length_bytes,
                                     TimePoint now) override;
  void on_started(std::uint32_t index, std::uint32_t length_bytes) override;
  void on_ended(std::uint32_t index, std::uint32_t length_bytes, TimePoint started,
                TimePoint now) override;

  // Of one request; 0: nothing is known.
  [[nodiscard]] std::uint64_t estimate_ns(std::uint32_t index) const {
    return paths_[place_[index]].estimate_ns;
  }

 private:
  struct Entry {
    std::uint32_t index;
    std::uint32_t outstanding = 0;
    std::uint64_t estimate_ns = 0;
    std::uint32_t estimated_from = 0;  // requests, at most kMaxEstimatedFrom
    TimePoint last_end{};
    TimePoint stale_at{};
  };
  static constexpr std::uint32_t kMaxEstimatedFrom = 64;
  // 16.8 ms each: one that takes over 1.06 s replaces all that was known.
  static constexpr unsigned kBucketShift = 24;
  static constexpr std::size_t kBuckets = 64;

  [[nodiscard]] static bool better(const Entry& one, const Entry& other, TimePoint now);

  std::vector<Entry> paths_;
  std::array<std::uint8_t, kMaxPaths> place_{};    // of a path in paths_
  std::array<std::uint32_t, kBuckets> weights_{};  // of the past, in 1024ths
  std::size_t last_ = 0;
};

}  // namespace iscsi_blkback
