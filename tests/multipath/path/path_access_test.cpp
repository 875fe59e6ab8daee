// What a path's access state makes of the path.
#include "multipath/path/path_access.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

LogicalUnitAccess told_by_refusal(AccessState state) {
  LogicalUnitAccess access;
  access.refused = state;
  return access;
}

LogicalUnitAccess told_by_group(AccessState state) {
  LogicalUnitAccess access;
  access.port.target_port_group = 1;
  access.groups = {{.tag = 1, .state = state}};
  return access;
}

LogicalUnitAccess told_by_rdac(const RdacVolumeAccess& volume) {
  LogicalUnitAccess access;
  access.rdac = volume;
  return access;
}

TEST(PathAccess, MakesAPathUpGhostPendingOrDown) {
  struct Row {
    const char* what;
    LogicalUnitAccess access;
    PathState state;
  };
  const Row rows[] = {
      {"nothing is told", {}, PathState::up},
      {"active/optimized", told_by_group(AccessState::active_optimized), PathState::up},
      {"active/non-optimized", told_by_group(AccessState::active_non_optimized), PathState::up},
      {"LBA dependent", told_by_group(AccessState::block_dependent), PathState::up},
      {"standby", told_by_group(AccessState::standby), PathState::ghost},
      {"transitioning", told_by_group(AccessState::transitioning), PathState::pending},
      {"unavailable", told_by_group(AccessState::unavailable), PathState::down},
      {"offline", told_by_group(AccessState::offline), PathState::down},
      {"a reserved value", told_by_group(static_cast<AccessState>(0x7)), PathState::down},
      {"refused, whatever the groups say", told_by_refusal(AccessState::standby), PathState::ghost},
      {"RDAC, the owner", told_by_rdac({.owned = true}), PathState::up},
      {"RDAC, I/O makes it the owner", told_by_rdac({.automatic_transfer = true}), PathState::up},
      {"RDAC, both serve", told_by_rdac({.shared = true}), PathState::up},
      {"RDAC, the other one owns it", told_by_rdac({}), PathState::ghost},
      {"RDAC, a transfer",
       told_by_rdac(
           {.state = AccessState::transitioning, .other_state = AccessState::transitioning}),
       PathState::pending},
      {"RDAC, this controller starts", told_by_rdac({.state = AccessState::transitioning}),
       PathState::down},
  };
  for (const Row& row : rows) {
    PathAccess access;
    EXPECT_EQ(access.judge(row.access, {}).state, row.state) << row.what;
    EXPECT_EQ(PathAccess::serves(row.access), row.state == PathState::up) << row.what;
  }
}

TEST(PathAccess, ATransitionHasAMinuteAndTheNextOneAsMuch) {
  const LogicalUnitAccess between = told_by_group(AccessState::transitioning);
  PathAccess access;
  const TimePoint begin{};
  EXPECT_EQ(access.judge(between, begin).state, PathState::pending);
  EXPECT_EQ(access.judge(between, begin + seconds(59)).state, PathState::pending);
  EXPECT_FALSE(access.change_overdue(begin + seconds(59)));
  EXPECT_TRUE(access.change_overdue(begin + seconds(60)));
  EXPECT_EQ(access.judge(between, begin + seconds(60)).state, PathState::down);
  EXPECT_EQ(access.judge(told_by_group(AccessState::active_optimized), begin + seconds(61)).state,
            PathState::up);
  EXPECT_FALSE(access.changing());
  EXPECT_EQ(access.judge(between, begin + seconds(62)).state, PathState::pending);
}

TEST(PathAccess, IsNewOnceAfterItWasToldFirst) {
  PathAccess access;
  EXPECT_FALSE(access.take_new());
  access.note({});
  EXPECT_TRUE(access.is_told());
  EXPECT_TRUE(access.take_new());
  access.note({});
  EXPECT_FALSE(access.take_new());
}

TEST(PathAccess, AnotherPortTellsWhetherTheOwnGroupHasChanged) {
  PathAccess access;
  EXPECT_FALSE(access.take_port_groups(told_by_group(AccessState::standby)))
      << "nothing is told yet";
  access.note(told_by_group(AccessState::active_optimized));
  EXPECT_FALSE(access.take_port_groups(told_by_group(AccessState::active_optimized)));
  EXPECT_TRUE(access.take_port_groups(told_by_group(AccessState::standby)));
  EXPECT_EQ(access.told().group()->state, AccessState::standby);
  EXPECT_TRUE(access.take_port_groups({})) << "its group is gone";
}

}  // namespace
}  // namespace iscsi_blkback
