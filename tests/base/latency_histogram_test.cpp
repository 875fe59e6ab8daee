#include "base/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

TEST(LatencyHistogram, IsZeroWhenEmpty) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.min(), 0ns);
  EXPECT_EQ(histogram.max(), 0ns);
  EXPECT_EQ(histogram.mean(), 0ns);
  EXPECT_EQ(histogram.percentile(99), 0ns);
}

TEST(LatencyHistogram, IsExactForShortDurations) {
  LatencyHistogram histogram;
  for (int ns = 0; ns < 64; ++ns) {
    histogram.record(Duration(ns));
  }
  EXPECT_EQ(histogram.min(), 0ns);
  EXPECT_EQ(histogram.max(), 63ns);
  EXPECT_EQ(histogram.total(), 2016ns);
  EXPECT_EQ(histogram.percentile(0), 0ns);
  EXPECT_EQ(histogram.percentile(50), 31ns);
  EXPECT_EQ(histogram.percentile(100), 63ns);
}

TEST(LatencyHistogram, AgreesWithASortedListToOnePartIn32) {
  SimRandom random(3);
  LatencyHistogram histogram;
  std::vector<std::int64_t> all;
  for (int i = 0; i < 20000; ++i) {
    // Every power of two alike, up to about a minute.
    const auto ns = static_cast<std::int64_t>(random.next() >> (28 + random.below(36)));
    all.push_back(ns);
    histogram.record(Duration(ns));
  }
  std::sort(all.begin(), all.end());
  for (const double percent : {0.1, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank =
        static_cast<std::size_t>(std::ceil(percent / 100.0 * static_cast<double>(all.size())));
    const std::int64_t exact = all[rank - 1];
    const std::int64_t found = histogram.percentile(percent).count();
    EXPECT_GE(found, exact) << percent;
    EXPECT_LE(found, exact + exact / 32) << percent;
  }
  EXPECT_EQ(histogram.min().count(), all.front());
  EXPECT_EQ(histogram.max().count(), all.back());
}

TEST(LatencyHistogram, KeepsItsBoundsOutsideItsRange) {
  LatencyHistogram histogram;
  histogram.record(-5ns);
  EXPECT_EQ(histogram.max(), 0ns);
  histogram.record(48h);
  EXPECT_EQ(histogram.max(), 48h);
  EXPECT_EQ(histogram.percentile(100), LatencyHistogram::kMax);
}

TEST(LatencyHistogram, MergesAsIfRecordedTogether) {
  LatencyHistogram one, two, both;
  for (int i = 1; i <= 1000; ++i) {
    (i % 3 == 0 ? one : two).record(std::chrono::microseconds(i));
    both.record(std::chrono::microseconds(i));
  }
  one.merge(LatencyHistogram());
  one.merge(two);
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.min(), both.min());
  EXPECT_EQ(one.max(), both.max());
  EXPECT_EQ(one.mean(), both.mean());
  EXPECT_EQ(one.percentile(50), both.percentile(50));
  one.clear();
  EXPECT_EQ(one.count(), 0U);
}

}  // namespace
}  // namespace iscsi_blkback
