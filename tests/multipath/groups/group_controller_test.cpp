// Which of a disk's groups of paths is used, and when another one is.
#include "multipath/groups/group_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/log.h"
#include "tests/multipath/unconnected_paths.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;

constexpr Duration kFailbackDelay = seconds(10);

// A disk of three paths, each a group of its own; the first is the best one.
class GroupControllerTest : public testing::Test, private GroupController::Owner {
 protected:
  GroupControllerTest() {
    set_log_level(LogLevel::error);
    for (std::uint32_t index = 0; index < 3; ++index) {
      groups_.add_path(index);
      paths_.add();
    }
    set_failback("manual");
  }

  void set_failback(const std::string& failback) {
    PathPolicySettings settings;
    settings.path_grouping_policy = PathGroupingPolicy::failover;
    settings.failback = parse_failback(failback).value();
    groups_.overrule(settings);
    groups_.follow(groups_.decide(nullptr));
  }
  void set_state(std::uint32_t index, PathState state) {
    paths_.set.note_state(index, {.state = state});
    groups_.on_state(index, state);
  }
  void up(std::uint32_t index) { set_state(index, PathState::up); }
  void down(std::uint32_t index) { set_state(index, PathState::down); }
  // A path that fails twice in double_failed_time is a last resort.
  void fail_twice(std::uint32_t index) {
    groups_.note_failure(paths_.set[index]);
    groups_.note_failure(paths_.set[index]);
  }
  [[nodiscard]] PathMask in_use() const {
    return groups_.groups().groups()[groups_.groups().current()].members;
  }

  SimReactor reactor_{1};
  PathMask activatable_ = 0;
  int activations_wanted_ = 0;
  std::vector<DiskStep> steps_done_;

 private:
  [[nodiscard]] PathMask activatable() const override { return activatable_; }
  void on_activation_wanted() noexcept override { ++activations_wanted_; }

  DiskLog log_{reactor_, "disk"};
  DiskSteps steps_{reactor_,
                   [](void* self) noexcept {
                     auto& test = *static_cast<GroupControllerTest*>(self);
                     while (const auto step = test.steps_.take_next({})) {
                       test.steps_done_.push_back(*step);
                     }
                   },
                   this};

 protected:
  UnconnectedPaths paths_{reactor_, log_};
  GroupController groups_{reactor_, {}, paths_.set, steps_, log_, *this};
};

TEST_F(GroupControllerTest, AGroupThatIsBackIsUsedWhenFailbackSaysSo) {
  struct Row {
    const char* failback;
    bool at_once;
    bool after_delay;
  };
  const Row rows[] = {
      {"manual", false, false},
      {"immediate", true, true},
      {"followover", true, true},
      {"10", false, true},
  };
  for (const Row& row : rows) {
    set_failback(row.failback);
    up(0);
    up(1);
    reactor_.run_for(kFailbackDelay * 2);
    down(0);
    EXPECT_EQ(in_use(), 0b010U) << row.failback;
    up(0);
    EXPECT_EQ(in_use(), row.at_once ? 0b001U : 0b010U) << row.failback;
    reactor_.run_for(kFailbackDelay - milliseconds(1));
    EXPECT_EQ(in_use(), row.at_once ? 0b001U : 0b010U) << row.failback;
    reactor_.run_for(milliseconds(1));
    EXPECT_EQ(in_use(), row.after_delay ? 0b001U : 0b010U) << row.failback;
    down(1);  // so that the first is in use again
    EXPECT_EQ(in_use(), 0b001U) << row.failback;
  }
}

TEST_F(GroupControllerTest, ALossMeanwhileBeginsTheDelayOfFailbackAnew) {
  set_failback("10");
  up(1);
  up(2);
  up(0);
  ASSERT_EQ(in_use(), 0b010U);
  reactor_.run_for(seconds(6));
  down(2);
  reactor_.run_for(seconds(9));
  EXPECT_EQ(in_use(), 0b010U);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(in_use(), 0b001U);
}

TEST_F(GroupControllerTest, ASwitchIsCountedWhenAnotherGroupIsUsed) {
  set_failback("immediate");
  up(0);
  up(1);
  EXPECT_EQ(groups_.switches(), 0U);
  down(0);
  EXPECT_EQ(groups_.switches(), 1U);
  down(1);
  up(1);
  EXPECT_EQ(groups_.switches(), 1U) << "the same one is back";
  up(0);
  EXPECT_EQ(groups_.switches(), 2U);
}

TEST_F(GroupControllerTest, APathThatFailsAgainAndAgainIsALastResortForAWhile) {
  up(0);
  up(1);
  groups_.note_failure(paths_.set[0]);
  EXPECT_EQ(in_use(), 0b001U);
  steps_done_.clear();
  groups_.note_failure(paths_.set[0]);
  EXPECT_EQ(in_use(), 0b010U) << "although failback is manual";
  reactor_.run_for(Duration::zero());
  EXPECT_THAT(steps_done_, Contains(DiskStep::pump));
  EXPECT_THAT(steps_done_, Contains(DiskStep::tell));
  EXPECT_TRUE(groups_.groups().traits(0).marginal);
  down(1);
  EXPECT_EQ(in_use(), 0b001U) << "it is better than none";
  reactor_.run_for(seconds(61));
  EXPECT_FALSE(groups_.groups().traits(0).marginal);
}

TEST_F(GroupControllerTest, ErrorsCountAgainstAPathOnlyWhileThereIsAnotherOne) {
  const auto errors = [this] {
    for (std::uint32_t error = 0; error < 2 * MarginalPath::kErrorsOfAFailure; ++error) {
      groups_.note_error(paths_.set[0]);
    }
    return groups_.groups().traits(0).marginal;
  };
  EXPECT_FALSE(errors()) << "it is not up";
  up(0);
  EXPECT_FALSE(errors()) << "it is the only one";
  up(1);
  EXPECT_TRUE(errors());
}

TEST_F(GroupControllerTest, ABetterGroupOfGhostsIsToBeActivated) {
  set_failback("immediate");
  set_state(0, PathState::ghost);
  activatable_ = 0b001;
  up(1);
  EXPECT_EQ(activations_wanted_, 0) << "the one that is up is as good";
  fail_twice(1);
  EXPECT_EQ(groups_.wanted_group(), 0U);
  EXPECT_EQ(activations_wanted_, 1);
  EXPECT_EQ(in_use(), 0b010U) << "until that is done";
  activatable_ = 0;
  EXPECT_EQ(groups_.wanted_group(), groups_.groups().current()) << "nobody can tell it";
}

TEST_F(GroupControllerTest, ARequestWaitsWhereNoPathTakesIt) {
  EXPECT_EQ(groups_.choose({.length_bytes = 4096}).path, nullptr);
  up(0);
  ASSERT_EQ(paths_.set.able(), 0U) << "its session is not logged in";
  EXPECT_EQ(groups_.choose({.length_bytes = 4096, .prefer = 0}).path, nullptr);
}

TEST_F(GroupControllerTest, LatenciesAreThoseOfWhatHasSucceeded) {
  Path& path = paths_.set[0];
  const TimePoint chosen_at = reactor_.now();
  reactor_.run_for(milliseconds(1));
  groups_.ended(path, chosen_at, true);
  EXPECT_EQ(path.take_timed_requests(), 0U) << "nobody asks for them";
  PathPolicySettings changes;
  changes.prio = make_prioritizer(PrioritizerKind::path_latency, {}).value();
  groups_.overrule(changes);
  groups_.follow(groups_.decide(nullptr));
  groups_.ended(path, {}, true);
  EXPECT_EQ(path.take_timed_requests(), 0U) << "it was chosen before that";
  groups_.ended(path, chosen_at, false);
  EXPECT_EQ(path.take_timed_requests(), 0U) << "it has failed";
  for (std::uint32_t request = 0; request < LatencyEstimate::kRequestsMin; ++request) {
    groups_.ended(path, chosen_at, true);
  }
  EXPECT_EQ(path.take_timed_requests(), LatencyEstimate::kRequestsMin);
  EXPECT_EQ(path.latency().mean(), milliseconds(1));
}

TEST_F(GroupControllerTest, SerialNumbersAreThePathsWhereTheyGroupThem) {
  const LogicalUnitIdentity identity;
  EXPECT_EQ(groups_.serial_number_is(identity, false), SerialNumberIs::the_luns);
  PathPolicySettings changes;
  changes.path_grouping_policy = PathGroupingPolicy::group_by_serial;
  groups_.overrule(changes);
  EXPECT_EQ(groups_.serial_number_is(identity, true), SerialNumberIs::the_luns)
      << "not decided yet for the disk's LUN";
  EXPECT_EQ(groups_.serial_number_is(identity, false), SerialNumberIs::the_paths);
  groups_.follow(groups_.decide(nullptr));
  EXPECT_EQ(groups_.serial_number_is(identity, true), SerialNumberIs::the_paths);
}

TEST_F(GroupControllerTest, ANewPolicyFormsTheGroupsAnew) {
  up(0);
  up(1);
  PathPolicySettings changes;
  changes.path_grouping_policy = PathGroupingPolicy::multibus;
  groups_.overrule(changes);
  const PathPolicies before = groups_.decide(nullptr);
  EXPECT_EQ(before.path_grouping_policy, PathGroupingPolicy::failover);
  groups_.follow(before);
  EXPECT_EQ(groups_.policies().path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(in_use(), 0b111U);
  EXPECT_EQ(groups_.switches(), 0U) << "its path is used still";
}

TEST_F(GroupControllerTest, APathThatLeavesIsInNoGroup) {
  up(0);
  up(1);
  paths_.set.retire(paths_.set[0]);
  groups_.retire_path(paths_.set[0]);
  groups_.reconsider();
  EXPECT_EQ(groups_.groups().groups().size(), 2U);
  EXPECT_EQ(in_use(), 0b010U);
}

TEST_F(GroupControllerTest, NothingChangesAfterTheEnd) {
  set_failback("10");
  up(1);
  up(0);
  ASSERT_EQ(in_use(), 0b010U);
  groups_.close();
  fail_twice(1);
  reactor_.run_for(kFailbackDelay * 2);
  EXPECT_EQ(in_use(), 0b010U);
}

}  // namespace
}  // namespace iscsi_blkback
