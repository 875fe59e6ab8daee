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

bool HistoricalServiceTimeSelector::better(const Candidate& one, const Candidate& other,
                                           TimePoint now) {
  if (one.estimate.time_ns == other.estimate.time_ns) {
    return one.outstanding < other.outstanding;
  }
  // An idle path that nothing is known of any more is tried; of two, the one that was left longer.
  const bool try_one = one.outstanding == 0 && one.estimate.stale_at <= now;
  const bool try_other = other.outstanding == 0 && other.estimate.stale_at <= now;
  if (try_one && try_other) {
    return one.estimate.stale_at < other.estimate.stale_at;
  }
  if (try_one != try_other) {
    return try_one;
  }
  const std::uint64_t time_of_one = (one.outstanding + 1) * one.estimate.time_ns;
  const std::uint64_t time_of_other = (other.outstanding + 1) * other.estimate.time_ns;
  // An estimate that is stale does not speak for its path, only the queue does.
  if ((time_of_one < time_of_other && one.estimate.stale_at <= now) ||
      (time_of_other < time_of_one && other.estimate.stale_at <= now)) {
    return one.outstanding < other.outstanding;
  }
  return time_of_one < time_of_other;
}

std::uint32_t HistoricalServiceTimeSelector::select(PathMask eligible, PathLoads loads,
                                                    std::uint32_t /*length_bytes*/, TimePoint now) {
  return turns_.choose(eligible, [=, this](std::uint32_t one, std::uint32_t other) {
    return better({estimates_[one], loads[one].requests},
                  {estimates_[other], loads[other].requests}, now);
  });
}

void HistoricalServiceTimeSelector::on_ended(std::uint32_t index, TimePoint started,
                                             TimePoint now) {
  Estimate& path = estimates_[index];
  const auto served =
      std::chrono::duration_cast<std::chrono::nanoseconds>(now - std::max(started, path.last_end));
  const auto time_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(served.count(), 0));
  const std::uint64_t weight =
      path.from == 0 ? 0 : weights_[std::min<std::uint64_t>(time_ns >> kBucketShift, kBuckets - 1)];
  path.time_ns = (path.time_ns * weight + time_ns * (kOne - weight)) / kOne;
  path.from = std::min(path.from + 1, kMaxEstimatedFrom);
  path.last_end = now;
  path.stale_at = now + std::chrono::nanoseconds(path.time_ns * path.from);
}

}  // namespace iscsi_blkback
