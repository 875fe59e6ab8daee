#include "multipath/groups/historical_service_time_selector.h"

#include <algorithm>
#include <chrono>

namespace iscsi_blkback {
namespace {

// Fixed point with 10 bits, as dm-mpath has it.
constexpr std::uint64_t kOne = 1024;
constexpr std::uint64_t kBaseWeight = 972;

}  // namespace

HistoricalServiceTimeSelector::HistoricalServiceTimeSelector() {
  std::uint64_t weight = kBaseWeight;
  for (std::uint32_t& bucket : weights_) {
    bucket = static_cast<std::uint32_t>(weight);
    weight = weight * kBaseWeight / kOne;
  }
  weights_.back() = 0;
}

void HistoricalServiceTimeSelector::add_path(std::uint32_t index) {
  ISCSI_BLKBACK_ASSERT(index < kMaxPaths);
  place_[index] = static_cast<std::uint8_t>(paths_.size());
  paths_.push_back(Entry{.index = index});
  last_ = paths_.size() - 1;  // the first choice among equals is the first path
}

void HistoricalServiceTimeSelector::remove_path(std::uint32_t index) {
  remove_entry(paths_, place_, index);
  last_ = paths_.empty() ? 0 : paths_.size() - 1;
}

bool HistoricalServiceTimeSelector::better(const Entry& one, const Entry& other, TimePoint now) {
  if (one.estimate_ns == other.estimate_ns) {
    return one.outstanding < other.outstanding;
  }
  // An idle path that nothing is known of any more is tried; of two, the one that was left longer.
  const bool try_one = one.outstanding == 0 && one.stale_at <= now;
  const bool try_other = other.outstanding == 0 && other.stale_at <= now;
  if (try_one && try_other) {
    return one.stale_at < other.stale_at;
  }
  if (try_one != try_other) {
    return try_one;
  }
  const std::uint64_t time_of_one = (one.outstanding + std::uint64_t{1}) * one.estimate_ns;
  const std::uint64_t time_of_other = (other.outstanding + std::uint64_t{1}) * other.estimate_ns;
  // An estimate that is stale does not speak for its path, only the queue does.
  if ((time_of_one < time_of_other && one.stale_at <= now) ||
      (time_of_other < time_of_one && other.stale_at <= now)) {
    return one.outstanding < other.outstanding;
  }
  return time_of_one < time_of_other;
}

std::uint32_t HistoricalServiceTimeSelector::select(PathMask eligible,
                                                    std::uint32_t /*length_bytes*/, TimePoint now) {
  last_ = best_in_turn(paths_, eligible, last_, [now](const Entry& one, const Entry& other) {
    return better(one, other, now);
  });
  return paths_[last_].index;
}

void HistoricalServiceTimeSelector::on_started(std::uint32_t index,
                                               std::uint32_t /*length_bytes*/) {
  ++paths_[place_[index]].outstanding;
}

void HistoricalServiceTimeSelector::on_ended(std::uint32_t index, std::uint32_t /*length_bytes*/,
                                             TimePoint started, TimePoint now) {
  Entry& path = paths_[place_[index]];
  --path.outstanding;
  const auto served =
      std::chrono::duration_cast<std::chrono::nanoseconds>(now - std::max(started, path.last_end));
  const auto time_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(served.count(), 0));
  const std::uint64_t weight =
      path.estimated_from == 0
          ? 0
          : weights_[std::min<std::uint64_t>(time_ns >> kBucketShift, kBuckets - 1)];
  path.estimate_ns = (path.estimate_ns * weight + time_ns * (kOne - weight)) / kOne;
  path.estimated_from = std::min(path.estimated_from + 1, kMaxEstimatedFrom);
  path.last_end = now;
  path.stale_at = now + std::chrono::nanoseconds(path.estimate_ns * path.estimated_from);
}

}  // namespace iscsi_blkback
