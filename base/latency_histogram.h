// LatencyHistogram: counts durations from nanoseconds to minutes in a fixed array, with a relative
// error of at most 1/32 (log-linear: 32 buckets for each power of two). Nothing is allocated. One
// thread; others get a copy by message.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

class LatencyHistogram {
 public:
  static constexpr unsigned kMaxBits = 40;
  static constexpr Duration kMax{(std::int64_t{1} << kMaxBits) - 1};  // about 18 minutes

  // Negative counts as 0; what is beyond kMax counts as kMax in percentile(), exactly in max().
  void record(Duration latency);
  void merge(const LatencyHistogram& other);
  void clear() { *this = LatencyHistogram(); }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] Duration min() const;  // zero when empty, like all of these
  [[nodiscard]] Duration max() const;
  [[nodiscard]] Duration mean() const;
  [[nodiscard]] Duration total() const;  // of all durations
  // The smallest recorded duration (rounded up to its bucket's end, never beyond max()) that at
  // least percent of the durations do not exceed. percent: 0..100.
  [[nodiscard]] Duration percentile(double percent) const;

 private:
  static constexpr unsigned kSubBits = 5;  // 32 buckets a power of two
  static constexpr std::size_t kBuckets = (kMaxBits - kSubBits + 1) << kSubBits;

  static std::size_t bucket_of(std::uint64_t nanoseconds);
  static std::uint64_t last_of(std::size_t bucket);  // the longest that falls into it

  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ns_ = 0;
  std::uint64_t min_ns_ = 0;
  std::uint64_t max_ns_ = 0;
};

}  // namespace iscsi_blkback
