#include "multipath/groups/path_group.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <vector>

#include "multipath/groups/choose_path.h"

namespace iscsi_blkback {
namespace {

constexpr PathMask mask(std::initializer_list<std::uint32_t> paths) {
  PathMask result = 0;
  for (const std::uint32_t path : paths) {
    result |= path_bit(path);
  }
  return result;
}

constexpr PathMask kFour = mask({0, 1, 2, 3});

void describe(PathGroups& groups, std::uint32_t path, const PathTraits& traits) {
  groups.set_traits(path, traits);
  groups.regroup();
}

constexpr std::array<PathLoad, kMaxPaths> kNoLoads{};

// Four paths, all up: priorities 50 10 50 10, groups 1 2 1 2, serials a b b a.
PathGroups four_paths(PathGroupingPolicy policy, PathLoads loads = kNoLoads) {
  PathGroups groups(loads, policy, PathSelectorKind::round_robin, 1);
  for (std::uint32_t path = 0; path < 4; ++path) {
    groups.add_path(path);
    groups.set_traits(path, {.priority = path % 2 == 0 ? 50 : 10,
                             .target_port_group = static_cast<std::uint16_t>(path % 2 + 1),
                             .serial = path == 0 || path == 3 ? "a" : "b"});
  }
  groups.set_states(kFour, 0);
  return groups;
}

std::vector<PathMask> members(const PathGroups& groups) {
  std::vector<PathMask> result;
  for (const PathGroup& group : groups.groups()) {
    result.push_back(group.members);
  }
  return result;
}

std::uint32_t next(PathGroups& groups, PathMask up) {
  return groups.select(up, up, 4096, {});
}

using Masks = std::vector<PathMask>;

TEST(PathGroups, MultibusIsOneGroupOfAll) {
  PathGroups groups = four_paths(PathGroupingPolicy::multibus);
  EXPECT_EQ(members(groups), Masks{kFour});
  EXPECT_EQ(groups.groups()[0].priority, 30) << "the mean";
  EXPECT_EQ(next(groups, kFour), 0U);
  EXPECT_EQ(next(groups, kFour), 1U);
}

TEST(PathGroups, FailoverIsAGroupForEachPathTheBestFirst) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  EXPECT_EQ(members(groups), (Masks{mask({0}), mask({2}), mask({1}), mask({3})}));
  EXPECT_EQ(next(groups, kFour), 0U);
  EXPECT_EQ(next(groups, kFour), 0U);
}

TEST(PathGroups, GroupByPrioPutsEqualPrioritiesTogether) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
  EXPECT_EQ(members(groups), (Masks{mask({0, 2}), mask({1, 3})}));
  EXPECT_EQ(groups.groups()[0].priority, 50);
  EXPECT_EQ(groups.groups()[1].priority, 10);
  EXPECT_EQ(next(groups, kFour), 0U);
  EXPECT_EQ(next(groups, kFour), 2U);
  EXPECT_EQ(next(groups, kFour), 0U);
}

TEST(PathGroups, GroupByTpgPutsTargetPortGroupsTogether) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_tpg);
  describe(groups, 1, {.priority = 50, .target_port_group = 1});
  EXPECT_EQ(members(groups), (Masks{mask({0, 1, 2}), mask({3})}));
}

TEST(PathGroups, GroupBySerialPutsSerialNumbersTogether) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_serial);
  EXPECT_EQ(members(groups), (Masks{mask({0, 3}), mask({1, 2})}));
}

TEST(PathGroups, AChangedPriorityMovesThePathToAnotherGroup) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
  describe(groups, 2, {.priority = 10});
  EXPECT_EQ(members(groups), (Masks{mask({0}), mask({1, 2, 3})}));
  EXPECT_EQ(groups.group_of(2), 1U);
}

TEST(PathGroups, TheGroupInUseStaysInUseWhenABetterOneAppears) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
  groups.set_states(mask({1, 3}), 0);
  EXPECT_EQ(next(groups, mask({1, 3})), 1U);
  groups.set_states(kFour, 0);
  EXPECT_EQ(next(groups, kFour), 3U);
  EXPECT_EQ(groups.groups()[groups.current()].members, mask({1, 3}));
  EXPECT_NE(groups.best(), groups.current());
  groups.use(groups.best());
  EXPECT_EQ(next(groups, kFour), 0U);
}

TEST(PathGroups, AGroupIsLeftWhenNoneOfItsPathsIsUp) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
  groups.set_states(mask({1, 2, 3}), 0);
  EXPECT_EQ(next(groups, mask({1, 2, 3})), 2U);
  groups.set_states(mask({1, 3}), 0);
  EXPECT_EQ(groups.groups()[groups.current()].members, mask({1, 3}));
}

TEST(PathGroups, AGroupIsKeptWhileAPathOfItIsAwaited) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  groups.set_states(mask({1, 2, 3}), 0, mask({0}));
  EXPECT_EQ(groups.groups()[groups.current()].members, mask({0}));
  EXPECT_TRUE(groups.awaits_current());
  EXPECT_EQ(next(groups, mask({1, 2, 3})), 2U) << "requests do not wait";
  groups.set_states(kFour, 0);
  EXPECT_EQ(groups.groups()[groups.current()].members, mask({0}));
  EXPECT_FALSE(groups.awaits_current());
  groups.set_states(mask({1, 2, 3}), 0, mask({0}));
  groups.set_states(mask({1, 2, 3}), 0);
  EXPECT_EQ(groups.groups()[groups.current()].members, mask({2})) << "it has not come back";
}

TEST(PathGroups, DownPathsDoNotCountForTheMeanAndGhostsDo) {
  PathGroups groups = four_paths(PathGroupingPolicy::multibus);
  groups.set_states(mask({0}), mask({1}));
  EXPECT_EQ(groups.groups()[0].priority, 30);
  groups.set_states(mask({0}), 0);
  EXPECT_EQ(groups.groups()[0].priority, 50);
  groups.set_states(0, 0);
  EXPECT_EQ(groups.groups()[0].priority, 0);
}

TEST(PathGroups, EqualPrioritiesAreOrderedByThePathsThatAreUp) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_serial);  // 0 3, 1 2; both 30
  describe(groups, 2, {.priority = 10, .serial = "b"});
  describe(groups, 0, {.priority = 10, .serial = "a"});
  groups.set_states(mask({0, 1, 2}), 0);
  EXPECT_EQ(groups.groups()[0].members, mask({1, 2}));
}

TEST(PathGroups, MarginalPathsAreAGroupOfLastResort) {
  PathGroups groups = four_paths(PathGroupingPolicy::multibus);
  describe(groups, 0, {.priority = 1000, .marginal = true});
  EXPECT_EQ(members(groups), (Masks{mask({1, 2, 3}), mask({0})}));
  EXPECT_TRUE(groups.groups()[1].marginal);
  groups.set_states(mask({0}), 0);
  EXPECT_EQ(next(groups, mask({0})), 0U) << "better than none";
}

TEST(PathGroups, ARetryElsewhereBorrowsAnotherGroupWithoutSwitching) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  EXPECT_EQ(groups.select_elsewhere(kFour & ~mask({0}), 4096, {}), 2U);
  EXPECT_EQ(next(groups, kFour), 0U);
  EXPECT_EQ(groups.current(), 0U);
}

TEST(PathGroups, AFullQueueIsNoReasonToUseAnotherGroup) {
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
  EXPECT_EQ(groups.select(kFour, mask({1, 3}), 4096, {}), PathGroups::kNoPath);
  EXPECT_EQ(groups.select(mask({1, 3}), mask({1, 3}), 4096, {}), 1U)
      << "but paths that do not answer are";
  EXPECT_EQ(groups.current(), 0U);
  // Nor to fall back to a better one before it is time.
  groups.use(1);
  EXPECT_EQ(groups.select(kFour, mask({0, 2}), 4096, {}), PathGroups::kNoPath);
}

TEST(PathGroups, AnotherSelectorGoesOnWithWhatIsUnderWay) {
  std::array<PathLoad, kMaxPaths> loads{};
  PathGroups groups = four_paths(PathGroupingPolicy::multibus, loads);
  loads[0] = {.requests = 3, .bytes = 3 * 4096};
  loads[1] = {.requests = 1, .bytes = 65536};
  groups.set_selector(PathSelectorKind::queue_length, 1, {});
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, {}), 1U);
  groups.set_selector(PathSelectorKind::service_time, 1, {});
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, {}), 0U);
  loads[1] = {};
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, {}), 1U);
}

TEST(PathGroups, WhatHadStartedBeforeTheSelectorIsTimedFromThere) {
  constexpr auto at_ms = [](int ms) { return TimePoint{} + std::chrono::milliseconds(ms); };
  std::array<PathLoad, kMaxPaths> loads{};
  PathGroups groups = four_paths(PathGroupingPolicy::multibus, loads);
  EXPECT_FALSE(groups.timed());
  groups.set_selector(PathSelectorKind::historical_service_time, 1, at_ms(1000));
  ASSERT_TRUE(groups.timed());
  groups.on_ended(0, {}, at_ms(1002));
  groups.on_ended(1, at_ms(999), at_ms(1003));
  loads[0].requests = 1;
  loads[1].requests = 1;
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, at_ms(1003)), 0U)
      << "2 ms, the other 3";
}

TEST(PathGroups, WeightsOutliveTheSelector) {
  PathGroups groups = four_paths(PathGroupingPolicy::multibus);
  groups.set_weight(0, 0);
  groups.set_selector(PathSelectorKind::service_time, 1, {});
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, {}), 1U);
  EXPECT_EQ(groups.select(mask({0, 1}), mask({0, 1}), 4096, {}), 1U);
}

TEST(PathGroups, AllSixtyFourPathsCanBeAGroupEach) {
  PathGroups groups(kNoLoads, PathGroupingPolicy::failover, PathSelectorKind::round_robin, 1);
  for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
    groups.add_path(path);
  }
  groups.set_states(~PathMask{0}, 0);
  EXPECT_EQ(groups.groups().size(), kMaxPaths);
  groups.set_states(path_bit(63), 0);
  EXPECT_EQ(next(groups, path_bit(63)), 63U);
}

TEST(PathGroupingPolicy, HasTheNamesOfMultipathConf) {
  for (const char* name :
       {"failover", "multibus", "group_by_prio", "group_by_tpg", "group_by_serial"}) {
    const auto policy = path_grouping_policy_named(name);
    ASSERT_TRUE(policy) << name;
    EXPECT_STREQ(to_string(*policy), name);
  }
  EXPECT_EQ(path_grouping_policy_named("group_by_node_name"), std::nullopt);
}

TEST(PathGroups, APathThatLeavesIsInNoGroupAndItsNumberServesAgain) {
  std::array<PathLoad, kMaxPaths> loads{};
  PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio, loads);
  loads[0].requests = 1;
  groups.retire_path(0);
  EXPECT_EQ(members(groups), (Masks{mask({2}), mask({1, 3})}));
  EXPECT_EQ(next(groups, kFour), 2U);
  groups.set_selector(PathSelectorKind::queue_length, 1, {});
  loads[0].requests = 0;
  groups.remove_path(0);
  groups.add_path(0);
  EXPECT_EQ(groups.traits(0), PathTraits());
  describe(groups, 0, {.priority = 50});
  groups.set_states(kFour, 0);
  EXPECT_EQ(members(groups), (Masks{mask({0, 2}), mask({1, 3})}));
}

TEST(PathGroups, TheNextGroupIsUsedWhenTheLastPathOfOneLeaves) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  ASSERT_EQ(next(groups, kFour), 0U);
  groups.retire_path(0);
  EXPECT_EQ(next(groups, kFour), 2U);
}

// --- choose_path()

// All are up, answer and have room, but for what a test says otherwise.
constexpr PathsNow kAllWell{.up = kFour, .answering = kFour, .able = kFour};

std::uint32_t choose(PathGroups& groups, const PathGroups::Wanted& wanted,
                     const PathsNow& paths = kAllWell, PathMask taking = kFour) {
  return choose_path(groups, wanted, paths, {},
                     [taking](std::uint32_t path) { return (taking & path_bit(path)) != 0; });
}

TEST(ChoosePath, APathThatIsPreferredIsTakenInWhateverGroupItIs) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  EXPECT_EQ(choose(groups, {.prefer = 3}), 3U);
  EXPECT_EQ(choose(groups, {.prefer = 3, .avoid = mask({3})}), 3U);
  PathsNow full = kAllWell;
  full.able = mask({0, 1, 2});
  EXPECT_EQ(choose(groups, {.prefer = 3}, full), 0U) << "it has no room";
  EXPECT_EQ(choose(groups, {.prefer = 3}, kAllWell, mask({0, 1, 2})), 0U) << "it has just gone";
}

TEST(ChoosePath, APathIsAvoidedAsLongAsThereIsAnother) {
  PathGroups groups = four_paths(PathGroupingPolicy::failover);
  EXPECT_EQ(choose(groups, {.avoid = mask({0})}), 2U);
  PathsNow paths = kAllWell;
  paths.able = mask({0});
  EXPECT_EQ(choose(groups, {.avoid = mask({0})}, paths), 0U);
  EXPECT_EQ(choose(groups, {.avoid = mask({0})}, kAllWell, mask({0})), 0U)
      << "the others have all just gone";
}

TEST(ChoosePath, APathThatHasJustGoneIsPassedOver) {
  PathGroups side_by_side = four_paths(PathGroupingPolicy::multibus);
  EXPECT_EQ(choose(side_by_side, {}, kAllWell, mask({3})), 3U);
  EXPECT_EQ(choose(side_by_side, {}, kAllWell, 0), PathGroups::kNoPath);
  PathGroups one_by_one = four_paths(PathGroupingPolicy::failover);
  EXPECT_EQ(choose(one_by_one, {}, kAllWell, mask({1, 2, 3})), PathGroups::kNoPath)
      << "its group is used until it has said so";
}

TEST(ChoosePath, AGroupThatIsSilentIsNotWaitedFor) {
  struct Row {
    const char* what;
    PathsNow paths;
    std::uint32_t chosen;
  };
  constexpr PathMask kSecondGroup = mask({1, 3});
  const Row rows[] = {
      {"it is silent", {.up = kFour, .answering = kSecondGroup, .able = kSecondGroup}, 1},
      {"all are", {.up = kFour, .answering = 0, .able = kFour}, 0},
      {"it is full", {.up = kFour, .answering = kFour, .able = kSecondGroup}, PathGroups::kNoPath},
  };
  for (const Row& row : rows) {
    PathGroups groups = four_paths(PathGroupingPolicy::group_by_prio);
    EXPECT_EQ(choose(groups, {}, row.paths), row.chosen) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
