#include "base/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace iscsi_blkback {
namespace {

Duration to_duration(std::uint64_t nanoseconds) {
  return Duration(static_cast<Duration::rep>(nanoseconds));
}

}  // namespace

void LatencyHistogram::record(Duration latency) {
  const auto ns = static_cast<std::uint64_t>(std::max(latency, Duration::zero()).count());
  ++buckets_[bucket_of(ns)];
  min_ns_ = count_ == 0 ? ns : std::min(min_ns_, ns);
  max_ns_ = std::max(max_ns_, ns);
  sum_ns_ += ns;
  ++count_;
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  if (other.count_ == 0) {
    return;
  }
  for (std::size_t i = 0; i < kBuckets; ++i) {
    buckets_[i] += other.buckets_[i];
  }
  min_ns_ = count_ == 0 ? other.min_ns_ : std::min(min_ns_, other.min_ns_);
  max_ns_ = std::max(max_ns_, other.max_ns_);
  sum_ns_ += other.sum_ns_;
  count_ += other.count_;
}

Duration LatencyHistogram::min() const {
  return to_duration(min_ns_);
}

Duration LatencyHistogram::max() const {
  return to_duration(max_ns_);
}

Duration LatencyHistogram::total() const {
  return to_duration(sum_ns_);
}

Duration LatencyHistogram::mean() const {
  return to_duration(count_ == 0 ? 0 : sum_ns_ / count_);
}

Duration LatencyHistogram::percentile(double percent) const {
  if (count_ == 0) {
    return Duration::zero();
  }
  const double share = std::clamp(percent, 0.0, 100.0) / 100.0;
  const auto rank = std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_))));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= rank) {
      return to_duration(std::min(last_of(i), max_ns_));
    }
  }
  return max();
}

std::size_t LatencyHistogram::bucket_of(std::uint64_t nanoseconds) {
  nanoseconds = std::min(nanoseconds, static_cast<std::uint64_t>(kMax.count()));
  // Up to 63 each value has its own bucket; from there on the kSubBits below the highest set bit
  // choose within their power of two.
  const auto bits = static_cast<unsigned>(std::bit_width(nanoseconds));
  if (bits <= kSubBits + 1) {
    return nanoseconds;
  }
  const unsigned shift = bits - (kSubBits + 1);
  return (std::size_t{shift} << kSubBits) + (nanoseconds >> shift);
}

std::uint64_t LatencyHistogram::last_of(std::size_t bucket) {
  if (bucket < std::size_t{2} << kSubBits) {
    return bucket;
  }
  const std::size_t shift = (bucket >> kSubBits) - 1;
  const std::uint64_t top = bucket - (shift << kSubBits);
  return ((top + 1) << shift) - 1;
}

}  // namespace iscsi_blkback
