#include "multipath/path_selector.h"

#include <gtest/gtest.h>

#include "multipath/path_group.h"

namespace iscsi_blkback {
namespace {

constexpr PathMask kThree = path_bit(0) | path_bit(1) | path_bit(2);

std::vector<std::uint32_t> choices(PathSelector& selector, PathMask eligible, int count) {
  std::vector<std::uint32_t> chosen;
  for (int i = 0; i < count; ++i) {
    chosen.push_back(selector.select(eligible));
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
  EXPECT_EQ(selector.select(kThree), 0U);
  EXPECT_EQ(selector.select(path_bit(1) | path_bit(2)), 1U);
  EXPECT_EQ(selector.select(kThree), 1U);
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
    ++taken[selector.select(~PathMask{0})];
  }
  EXPECT_EQ(taken, std::vector<int>(kMaxPaths, 10));
}

PathGroups groups_of(PathGroupingPolicy policy) {
  PathGroups groups(policy, PathSelectorKind::round_robin, 1);
  for (std::uint32_t path : {0U, 1U, 2U}) {
    groups.add_path(path);
  }
  return groups;
}

TEST(PathGroups, MultibusUsesAllPathsSideBySide) {
  PathGroups groups = groups_of(PathGroupingPolicy::multibus);
  EXPECT_EQ(groups.select(kThree, kThree), 0U);
  EXPECT_EQ(groups.select(kThree, kThree), 1U);
  EXPECT_EQ(groups.group_of(0), groups.group_of(2));
}

TEST(PathGroups, FailoverUsesOnePathUntilItIsDown) {
  PathGroups groups = groups_of(PathGroupingPolicy::failover);
  EXPECT_EQ(groups.select(kThree, kThree), 0U);
  EXPECT_EQ(groups.select(kThree, kThree), 0U);
  const PathMask rest = path_bit(1) | path_bit(2);
  EXPECT_EQ(groups.select(rest, rest), 1U);
  EXPECT_EQ(groups.select(rest, rest), 1U);
  EXPECT_EQ(groups.current(), 1U);
}

TEST(PathGroups, FailoverStaysWhereItIsWhenAnEarlierPathComesBack) {
  PathGroups groups = groups_of(PathGroupingPolicy::failover);
  EXPECT_EQ(groups.select(path_bit(2), path_bit(2)), 2U);
  EXPECT_EQ(groups.select(kThree, kThree), 2U);
}

TEST(PathGroups, ARetryElsewhereBorrowsAnotherGroupWithoutSwitching) {
  PathGroups groups = groups_of(PathGroupingPolicy::failover);
  EXPECT_EQ(groups.select(kThree, kThree & ~path_bit(0)), 1U);
  EXPECT_EQ(groups.select(kThree, kThree), 0U);
  EXPECT_EQ(groups.current(), 0U);
}

}  // namespace
}  // namespace iscsi_blkback
