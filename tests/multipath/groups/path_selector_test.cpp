#include "multipath/groups/path_selector.h"

#include <gtest/gtest.h>

#include <array>

#include "multipath/groups/historical_service_time_selector.h"
#include "multipath/groups/load_selectors.h"
#include "multipath/groups/round_robin_selector.h"

namespace iscsi_blkback {
namespace {

constexpr PathMask kThree = path_bit(0) | path_bit(1) | path_bit(2);

// What is under way on the paths, as they count it.
struct Load {
  void started(std::uint32_t path, std::uint32_t length_bytes) {
    ++paths[path].requests;
    paths[path].bytes += length_bytes;
  }
  void ended(std::uint32_t path, std::uint32_t length_bytes) {
    --paths[path].requests;
    paths[path].bytes -= length_bytes;
  }

  std::array<PathLoad, kMaxPaths> paths{};
};

constexpr std::array<PathLoad, kMaxPaths> kIdlePaths{};

std::vector<std::uint32_t> choices(PathSelector& selector, PathMask eligible, int count,
                                   const Load& load = {}) {
  std::vector<std::uint32_t> chosen;
  for (int i = 0; i < count; ++i) {
    chosen.push_back(selector.select(eligible, load.paths, 4096, {}));
  }
  return chosen;
}

RoundRobinSelector three_paths(std::uint32_t rr_min_io) {
  RoundRobinSelector selector(rr_min_io);
  for (std::uint32_t path : {0U, 1U, 2U}) {
    selector.add_path(path);
  }
  return selector;
}

using Choices = std::vector<std::uint32_t>;

TEST(RoundRobinSelector, TakesThePathsInTurn) {
  RoundRobinSelector selector = three_paths(1);
  EXPECT_EQ(choices(selector, kThree, 7), (Choices{0, 1, 2, 0, 1, 2, 0}));
}

TEST(RoundRobinSelector, StaysForRrMinIoRequests) {
  RoundRobinSelector selector = three_paths(3);
  EXPECT_EQ(choices(selector, kThree, 8), (Choices{0, 0, 0, 1, 1, 1, 2, 2}));
}

TEST(RoundRobinSelector, RrMinIoOfZeroCountsAsOne) {
  RoundRobinSelector selector = three_paths(0);
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{0, 1, 2}));
}

TEST(RoundRobinSelector, SkipsAPathThatIsNotEligible) {
  RoundRobinSelector selector = three_paths(1);
  EXPECT_EQ(choices(selector, path_bit(0) | path_bit(2), 4), (Choices{0, 2, 0, 2}));
}

TEST(RoundRobinSelector, LeavesAPathThatStopsBeingEligibleBeforeItsShareIsUsed) {
  RoundRobinSelector selector = three_paths(100);
  EXPECT_EQ(selector.select(kThree, kIdlePaths, 4096, {}), 0U);
  EXPECT_EQ(selector.select(path_bit(1) | path_bit(2), kIdlePaths, 4096, {}), 1U);
  EXPECT_EQ(selector.select(kThree, kIdlePaths, 4096, {}), 1U);
}

TEST(RoundRobinSelector, TakesAPathAgainThatHasComeBack) {
  RoundRobinSelector selector = three_paths(1);
  EXPECT_EQ(choices(selector, path_bit(1), 2), (Choices{1, 1}));
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{2, 0, 1}));
}

TEST(RoundRobinSelector, IgnoresPathsOfOtherGroups) {
  RoundRobinSelector selector = three_paths(1);
  EXPECT_EQ(choices(selector, kThree | path_bit(63), 4), (Choices{0, 1, 2, 0}));
}

TEST(RoundRobinSelector, StartsAtTheFirstPathThatIsEligible) {
  RoundRobinSelector selector = three_paths(2);
  EXPECT_EQ(choices(selector, path_bit(2), 3), (Choices{2, 2, 2}));
}

TEST(RoundRobinSelector, SpreadsEvenlyOverAllPaths) {
  RoundRobinSelector selector(10);
  for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
    selector.add_path(path);
  }
  std::vector<int> taken(kMaxPaths);
  for (std::uint32_t i = 0; i < 10 * kMaxPaths; ++i) {
    ++taken[selector.select(~PathMask{0}, kIdlePaths, 4096, {})];
  }
  EXPECT_EQ(taken, std::vector<int>(kMaxPaths, 10));
}

template <typename Selector>
Selector with_three_paths() {
  Selector selector;
  for (std::uint32_t path : {0U, 1U, 2U}) {
    selector.add_path(path);
  }
  return selector;
}

TEST(QueueLengthSelector, TakesThePathWithTheFewestRequests) {
  auto selector = with_three_paths<QueueLengthSelector>();
  Load load;
  load.started(0, 4096);
  load.started(0, 4096);
  load.started(1, 1 << 20);
  EXPECT_EQ(selector.select(path_bit(0) | path_bit(1), load.paths, 4096, {}), 1U);
  EXPECT_EQ(selector.select(kThree, load.paths, 4096, {}), 2U);
  load.ended(0, 4096);
  load.ended(0, 4096);
  EXPECT_EQ(selector.select(path_bit(0) | path_bit(1), load.paths, 4096, {}), 0U);
}

TEST(QueueLengthSelector, EqualPathsTakeTurns) {
  auto selector = with_three_paths<QueueLengthSelector>();
  EXPECT_EQ(choices(selector, kThree, 6), (Choices{0, 1, 2, 0, 1, 2}));
}

TEST(QueueLengthSelector, CountsRequestsThatAnotherRuleSentThere) {
  auto selector = with_three_paths<QueueLengthSelector>();
  Load load;
  load.started(0, 4096);  // a retry on the same path
  EXPECT_EQ(choices(selector, kThree, 2, load), (Choices{1, 2}));
}

TEST(QueueLengthSelector, IgnoresPathsThatAreNotEligible) {
  auto selector = with_three_paths<QueueLengthSelector>();
  Load load;
  load.started(1, 4096);
  EXPECT_EQ(choices(selector, path_bit(1) | path_bit(63), 2, load), (Choices{1, 1}));
}

TEST(ServiceTimeSelector, TakesThePathWithTheFewestBytes) {
  auto selector = with_three_paths<ServiceTimeSelector>();
  Load load;
  load.started(0, 65536);
  load.started(1, 4096);
  load.started(1, 4096);
  load.started(2, 16384);
  EXPECT_EQ(selector.select(kThree, load.paths, 4096, {}), 1U);
  load.ended(0, 65536);
  EXPECT_EQ(selector.select(kThree, load.paths, 4096, {}), 0U);
}

constexpr TimePoint at_ms(int ms) {
  return TimePoint{} + std::chrono::milliseconds(ms);
}

TEST(HistoricalServiceTimeSelector, PrefersTheFasterPath) {
  auto selector = with_three_paths<HistoricalServiceTimeSelector>();
  Load load;
  // Path 0 takes 10 ms, path 1 takes 2 ms, both often enough to be believed.
  for (int round = 1; round <= 20; ++round) {
    for (const auto& [path, took_ms] : {std::pair{0U, 10}, std::pair{1U, 2}}) {
      selector.on_ended(path, at_ms(round * 10 - took_ms), at_ms(round * 10));
    }
  }
  const PathMask both = path_bit(0) | path_bit(1);
  // Up to four requests wait on the fast one before the slow one would be through first.
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(selector.select(both, load.paths, 4096, at_ms(201)), 1U) << i;
    load.started(1, 4096);
  }
  load.started(1, 4096);
  EXPECT_EQ(selector.select(both, load.paths, 4096, at_ms(201)), 0U);
}

TEST(HistoricalServiceTimeSelector, TriesAnIdlePathThatNothingIsKnownOfAnyMore) {
  auto selector = with_three_paths<HistoricalServiceTimeSelector>();
  Load load;
  selector.on_ended(0, at_ms(0), at_ms(10));
  selector.on_ended(1, at_ms(12), at_ms(14));
  const PathMask both = path_bit(0) | path_bit(1);
  load.started(1, 4096);
  // Path 0 was measured once, at 10 ms: 10 ms later that is stale.
  EXPECT_EQ(selector.select(both, load.paths, 4096, at_ms(15)), 1U);
  EXPECT_EQ(selector.select(both, load.paths, 4096, at_ms(20)), 0U);
}

TEST(HistoricalServiceTimeSelector, ForgetsFasterTheLongerARequestTook) {
  auto selector = with_three_paths<HistoricalServiceTimeSelector>();
  selector.on_ended(0, at_ms(0), at_ms(1));
  EXPECT_EQ(selector.estimate_ns(0), 1'000'000U);
  selector.on_ended(0, at_ms(10), at_ms(13));
  EXPECT_EQ(selector.estimate_ns(0), (1'000'000U * 972U + 3'000'000U * 52U) / 1024U);
  selector.on_ended(0, at_ms(20), at_ms(2020));
  EXPECT_EQ(selector.estimate_ns(0), 2'000'000'000U);
}

TEST(HistoricalServiceTimeSelector, AQueueCountsAsServedOneByOne) {
  auto selector = with_three_paths<HistoricalServiceTimeSelector>();
  selector.on_ended(0, at_ms(0), at_ms(5));
  selector.on_ended(0, at_ms(0), at_ms(10));  // 5 ms after the one before
  EXPECT_EQ(selector.estimate_ns(0), 5'000'000U);
}

TEST(HistoricalServiceTimeSelector, UnknownPathsTakeTurns) {
  auto selector = with_three_paths<HistoricalServiceTimeSelector>();
  EXPECT_EQ(choices(selector, kThree, 4), (Choices{0, 1, 2, 0}));
}

TEST(PathSelectorNames, AreThoseOfMultipathConf) {
  for (const auto kind :
       {PathSelectorKind::round_robin, PathSelectorKind::queue_length,
        PathSelectorKind::service_time, PathSelectorKind::historical_service_time}) {
    EXPECT_EQ(path_selector_named(to_string(kind)), kind);
    EXPECT_EQ(path_selector_named(std::string(to_string(kind)) + " 0"), kind);
  }
  EXPECT_EQ(path_selector_named("service-time 1"), std::nullopt);
  EXPECT_EQ(path_selector_named(""), std::nullopt);
}

TEST(ServiceTimeSelector, WeighsBytesByThroughput) {
  auto selector = with_three_paths<ServiceTimeSelector>();
  Load load;
  selector.set_weight(1, 4);
  std::array<int, 3> taken{};
  for (int i = 0; i < 60; ++i) {
    const std::uint32_t path = selector.select(kThree, load.paths, 4096, {});
    load.started(path, 4096);
    ++taken[path];
  }
  EXPECT_EQ(taken, (std::array<int, 3>{10, 40, 10}));
}

TEST(ServiceTimeSelector, AWeightOfZeroIsForWhenNothingElseIsThere) {
  auto selector = with_three_paths<ServiceTimeSelector>();
  Load load;
  selector.set_weight(0, 0);
  for (int i = 0; i < 10; ++i) {
    const std::uint32_t path = selector.select(kThree, load.paths, 4096, {});
    load.started(path, 1 << 20);
    EXPECT_NE(path, 0U);
  }
  EXPECT_EQ(selector.select(path_bit(0), load.paths, 4096, {}), 0U);
}

TEST(RoundRobinSelector, AWeightMultipliesRrMinIo) {
  RoundRobinSelector selector = three_paths(2);
  selector.set_weight(1, 2);
  selector.set_weight(2, 0);
  EXPECT_EQ(choices(selector, kThree, 9), (Choices{0, 0, 1, 1, 1, 1, 2, 2, 0}));
}

TEST(RoundRobinSelector, GoesOnBehindAPathThatIsRemoved) {
  RoundRobinSelector selector = three_paths(2);
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{0, 0, 1}));
  selector.remove_path(1);
  EXPECT_EQ(choices(selector, kThree, 4), (Choices{2, 2, 0, 0}));
  selector.remove_path(0);
  EXPECT_EQ(choices(selector, kThree, 2), (Choices{2, 2}));
  selector.add_path(0);
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{0, 0, 2}));
}

TEST(RoundRobinSelector, StaysWithItsPathWhenAnotherIsRemoved) {
  RoundRobinSelector selector = three_paths(2);
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{0, 0, 1}));
  selector.remove_path(0);
  EXPECT_EQ(choices(selector, kThree, 3), (Choices{1, 2, 2}));
}

TEST(QueueLengthSelector, KnowsItsPathsAfterOneIsRemoved) {
  auto selector = with_three_paths<QueueLengthSelector>();
  Load load;
  load.started(2, 4096);
  selector.remove_path(0);
  EXPECT_EQ(selector.select(kThree, load.paths, 4096, {}), 1U);
  load.ended(2, 4096);
  selector.add_path(0);
  load.started(1, 4096);
  load.started(2, 4096);
  EXPECT_EQ(selector.select(kThree, load.paths, 4096, {}), 0U);
}

}  // namespace
}  // namespace iscsi_blkback
