// When an array is told to serve a LUN through which path, and when the next one is asked.
#include "multipath/groups/path_activator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "base/log.h"
#include "tests/multipath/unconnected_paths.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::Not;
using Outcome = PathActivation::Outcome;

// A disk of three paths, each a group of its own. The array is the test's.
class PathActivatorTest : public testing::Test,
                          private GroupController::Owner,
                          private PathActivator::Ghosts {
 protected:
  static constexpr std::uint32_t kPaths = 3;
  static constexpr Duration kAnswerTime = seconds(7);
  static constexpr Duration kInitDelay = seconds(2);
  static constexpr Duration kLook = milliseconds(50);

  PathActivatorTest() {
    set_log_level(LogLevel::error);
    for (std::uint32_t index = 0; index < kPaths; ++index) {
      groups_.add_path(index);
      paths_.add();
    }
  }

  using States = std::array<PathState, kPaths>;
  static constexpr PathState kGhost = PathState::ghost;
  static constexpr PathState kDown = PathState::down;
  static constexpr PathState kUp = PathState::up;
  static constexpr States kGhosts{kGhost, kGhost, kGhost};

  // As MultipathDevice does for the changes of a turn.
  void set_states(const States& states) {
    for (std::uint32_t index = 0; index < kPaths; ++index) {
      paths_.set.note_state(index, {.state = states[index]});
    }
    const bool all_lost = paths_.set.take_changes().had_path && paths_.set.up() == 0;
    if (all_lost) {
      activator_.on_all_lost();
    }
    for (std::uint32_t index = 0; index < kPaths; ++index) {
      groups_.on_state(index, states[index]);
      activator_.on_state(index, states[index]);
    }
    groups_.reconsider();
    activator_.activate_if_needed();
    end_turn();
  }
  void answer(std::uint32_t path, Outcome outcome) {
    telling_ &= ~path_bit(path);
    activator_.on_done(paths_.set[path], outcome);
    end_turn();
  }
  // No time passes.
  void end_turn() { reactor_.run_for(Duration::zero()); }
  [[nodiscard]] const Path& path(std::uint32_t index) { return paths_.set[index]; }

  using Asked = std::vector<std::uint32_t>;
  SimReactor reactor_{1};
  Asked asked_;
  PathMask refreshed_ = 0;
  int withdrawn_ = 0;
  // What the paths say.
  PathMask can_be_told_ = ~PathMask{0};
  PathMask awaiting_answer_ = 0;
  bool identifying_ = false;
  bool reading_ = false;
  std::vector<DiskStep> steps_done_;

 private:
  [[nodiscard]] PathMask tellable() const override { return can_be_told_ & ~telling_; }
  [[nodiscard]] PathMask awaiting_answer() const override { return awaiting_answer_; }
  [[nodiscard]] bool answer_is_near(bool reads_count) const override {
    return identifying_ || (reads_count && reading_);
  }
  void activate(std::uint32_t path) override {
    ASSERT_NE(tellable() & path_bit(path), 0U);
    asked_.push_back(path);
    telling_ |= path_bit(path);
  }
  void withdraw() override { ++withdrawn_; }
  void refresh_access(PathMask paths) override { refreshed_ |= paths; }
  [[nodiscard]] PathMask activatable() const override { return activator_.activatable(); }
  void on_activation_wanted() noexcept override { activator_.want_failback(); }
  void settle() {
    while (const auto step = steps_.take_next({})) {
      steps_done_.push_back(*step);
      if (step == DiskStep::activate) {
        activator_.look();
      }
    }
  }
  static GroupController::Options options() {
    GroupController::Options result;
    result.settings.path_grouping_policy = PathGroupingPolicy::failover;
    result.settings.pg_init_retries = 2;
    result.settings.pg_init_delay = std::chrono::duration_cast<milliseconds>(kInitDelay);
    return result;
  }

  PathMask telling_ = 0;
  DiskLog log_{reactor_, "disk"};
  DiskSteps steps_{
      reactor_, [](void* self) noexcept { static_cast<PathActivatorTest*>(self)->settle(); }, this};

 protected:
  UnconnectedPaths paths_{reactor_, log_};
  GroupController groups_{reactor_, options(), paths_.set, steps_, log_, *this};
  PathActivator activator_{reactor_,   std::chrono::duration_cast<milliseconds>(kAnswerTime),
                           paths_.set, *this,
                           groups_,    steps_,
                           log_};
};

TEST_F(PathActivatorTest, TheBestGhostIsAskedWhenNoPathIsUp) {
  activator_.set_known();
  set_states({kGhost, kUp, kGhost});
  reactor_.run_for(seconds(60));
  EXPECT_EQ(asked_, Asked{});
  set_states({kGhost, kDown, kGhost});
  EXPECT_EQ(refreshed_, 0b101U) << "one of them may be the active side by now";
  EXPECT_EQ(asked_, Asked{0});
  EXPECT_TRUE(activator_.busy());
}

TEST_F(PathActivatorTest, AtAttachTheActiveSideMayBeLate) {
  set_states(kGhosts);
  reactor_.run_for(milliseconds(4900));
  EXPECT_EQ(asked_, Asked{});
  EXPECT_TRUE(activator_.concerns(path(1)));
  reactor_.run_for(milliseconds(200));
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, APathThatIsBeingIdentifiedIsWaitedFor) {
  activator_.set_known();
  identifying_ = true;
  set_states(kGhosts);
  reactor_.run_for(seconds(10));
  EXPECT_EQ(asked_, Asked{});
  identifying_ = false;
  reactor_.run_for(kLook);
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, PathsThatReadTheirAccessAreWaitedForOnce) {
  activator_.set_known();
  reading_ = true;
  set_states(kGhosts);
  reactor_.run_for(milliseconds(150));
  EXPECT_EQ(asked_, Asked{});
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, OneThatRefusesIsPassedOverUntilAllHave) {
  activator_.set_known();
  set_states(kGhosts);
  answer(0, Outcome::failed);
  EXPECT_EQ(asked_, (Asked{0, 1}));
  answer(1, Outcome::lost);
  EXPECT_EQ(asked_, (Asked{0, 1, 2}));
  steps_done_.clear();
  answer(2, Outcome::failed);
  EXPECT_FALSE(activator_.busy());
  EXPECT_EQ(activator_.activatable(), 0U);
  reactor_.run_for(milliseconds(9900));
  EXPECT_THAT(steps_done_, Contains(DiskStep::follow_outage));
  EXPECT_EQ(asked_, (Asked{0, 1, 2}));
  reactor_.run_for(milliseconds(200));
  EXPECT_EQ(asked_, (Asked{0, 1, 2, 0})) << "tried again after a while";
}

TEST_F(PathActivatorTest, OneThatDoesNotAnswerIsPassedOverAndItsLateAnswerDisturbsNobody) {
  activator_.set_known();
  set_states(kGhosts);
  reactor_.run_for(kAnswerTime);
  EXPECT_EQ(asked_, (Asked{0, 1}));
  refreshed_ = 0;
  answer(0, Outcome::done);
  EXPECT_NE(refreshed_, 0U) << "who knows what the array has made of it";
  EXPECT_EQ(asked_, (Asked{0, 1}));
  reactor_.run_for(kAnswerTime - milliseconds(100));
  EXPECT_EQ(asked_, (Asked{0, 1})) << "the second one has all of its time";
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(asked_, (Asked{0, 1, 2}));
}

// Which path is the next one is decided after all that this turn brings.
TEST_F(PathActivatorTest, TheNextIsNotAskedBeforeTheTurnEnds) {
  activator_.set_known();
  set_states(kGhosts);
  activator_.on_done(path(0), Outcome::failed);
  can_be_told_ &= ~path_bit(1);
  EXPECT_EQ(asked_, Asked{0});
  end_turn();
  EXPECT_EQ(asked_, (Asked{0, 2}));
}

TEST_F(PathActivatorTest, TheOnlyOneIsAskedAgainWhenItAnswersAfterAll) {
  activator_.set_known();
  set_states({kGhost, kDown, kDown});
  reactor_.run_for(seconds(60));
  EXPECT_EQ(asked_, Asked{0}) << "it cannot be told while it is being told";
  answer(0, Outcome::failed);
  EXPECT_EQ(asked_, (Asked{0, 0}));
}

TEST_F(PathActivatorTest, OneThatCannotNowIsAskedAgainAsOftenAsPgInitRetriesSays) {
  activator_.set_known();
  set_states(kGhosts);
  for (std::size_t tries = 1; tries <= 3; ++tries) {
    ASSERT_EQ(asked_, Asked(tries, 0));
    answer(0, Outcome::retry);
    reactor_.run_for(kInitDelay - milliseconds(1));
    EXPECT_EQ(asked_, Asked(tries, 0));
    reactor_.run_for(milliseconds(1));
  }
  EXPECT_EQ(asked_, (Asked{0, 0, 0, 1}));
}

TEST_F(PathActivatorTest, OneThatCannotBeToldAnyMoreIsPassedOver) {
  activator_.set_known();
  set_states(kGhosts);
  answer(0, Outcome::retry);
  can_be_told_ &= ~path_bit(0);
  reactor_.run_for(kInitDelay);
  EXPECT_EQ(asked_, (Asked{0, 1}));
}

TEST_F(PathActivatorTest, AnActivationIsOverWhenThePathIsUp) {
  activator_.set_known();
  set_states(kGhosts);
  answer(0, Outcome::done);
  EXPECT_TRUE(activator_.busy()) << "the array has only said so";
  set_states({kUp, kGhost, kGhost});
  EXPECT_FALSE(activator_.busy());
  reactor_.run_for(seconds(60));
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, OneThatStaysAGhostIsAskedAgain) {
  activator_.set_known();
  set_states(kGhosts);
  answer(0, Outcome::done);
  reactor_.run_for(kInitDelay);
  EXPECT_EQ(asked_, (Asked{0, 0}));
}

TEST_F(PathActivatorTest, OneThatHasNotAnsweredSomethingElseComesLastInItsGroup) {
  PathPolicySettings one_group;
  one_group.path_grouping_policy = PathGroupingPolicy::multibus;
  groups_.overrule(one_group);
  groups_.follow(groups_.decide(nullptr));
  activator_.set_known();
  awaiting_answer_ = 0b001;
  set_states(kGhosts);
  EXPECT_EQ(asked_, Asked{1});
  answer(1, Outcome::failed);
  answer(2, Outcome::failed);
  EXPECT_EQ(asked_, (Asked{1, 2, 0}));
}

TEST_F(PathActivatorTest, ASuspendedDiskAsksNobodyAndBeginsAnewWhenItGoesOn) {
  activator_.set_known();
  set_states(kGhosts);
  activator_.suspend();
  EXPECT_EQ(withdrawn_, 1);
  EXPECT_FALSE(activator_.busy());
  answer(0, Outcome::retry);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(asked_, Asked{0});
  activator_.resume();
  EXPECT_EQ(asked_, Asked{0}) << "not from inside";
  end_turn();
  EXPECT_EQ(asked_, (Asked{0, 0}));
}

TEST_F(PathActivatorTest, ADiskThatIsClosedAsksNobody) {
  activator_.set_known();
  set_states(kGhosts);
  activator_.close();
  EXPECT_EQ(withdrawn_, 1);
  answer(0, Outcome::failed);
  set_states(kGhosts);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, APathThatIsRemovedMakesRoomForTheNext) {
  activator_.set_known();
  set_states(kGhosts);
  paths_.set.retire(paths_.set[0]);
  groups_.retire_path(paths_.set[0]);
  activator_.forget(path(0));
  EXPECT_FALSE(activator_.busy());
  activator_.activate_if_needed();
  EXPECT_EQ(asked_, (Asked{0, 1}));
}

// A group of last resort is left for a better one, whatever failback says.
TEST_F(PathActivatorTest, ForABetterSideThereIsNoHurry) {
  activator_.set_known();
  set_states({kGhost, kUp, kDown});
  identifying_ = true;
  groups_.note_failure(paths_.set[1]);
  groups_.note_failure(paths_.set[1]);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(asked_, Asked{}) << "it may be about to show that it is active already";
  identifying_ = false;
  reactor_.run_for(kLook);
  EXPECT_EQ(asked_, Asked{0});
}

TEST_F(PathActivatorTest, AGhostIsOnItsWayWhileItIsOrMayBeAsked) {
  set_states({kGhost, kGhost, kDown});
  EXPECT_TRUE(activator_.concerns(path(0)));
  EXPECT_FALSE(activator_.concerns(path(2))) << "it is down";
  can_be_told_ = 0b001;
  EXPECT_FALSE(activator_.concerns(path(1))) << "nobody can tell it";
  activator_.suspend();
  EXPECT_FALSE(activator_.concerns(path(0)));
  activator_.resume();
  activator_.set_known();
  EXPECT_FALSE(activator_.concerns(path(0))) << "the disk does not wait for it";
  set_states({kGhost, kGhost, kDown});
  EXPECT_TRUE(activator_.concerns(path(0))) << "it is asked";
}

}  // namespace
}  // namespace iscsi_blkback
