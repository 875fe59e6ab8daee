#include "base/poll_governor.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class PollGovernorTest : public testing::Test {
 protected:
  // A wait, in which something comes after that time: whether the reactor was awake then.
  bool wait(Duration until_it_comes, std::uint32_t answers = 1) {
    const Duration longest = governor.begin(now, answers);
    const TimePoint began = now;
    now += until_it_comes;
    if (longest == Duration::zero()) {
      return false;
    }
    const bool found = until_it_comes <= longest;
    const Duration looked = std::min(until_it_comes, longest);
    governor.end(began, began + looked, found);
    looked_for += looked;
    return found;
  }
  // How many waits begin without a look until one begins with it.
  int sleeps(Duration until_it_comes) {
    for (int count = 0; count < 100000; ++count) {
      const Duration before = looked_for;
      wait(until_it_comes);
      if (looked_for != before) {
        return count;
      }
    }
    return -1;
  }

  TimePoint now{1h};
  Duration looked_for{};
  PollGovernor governor{PollLimits{100us, 100}};
};

TEST_F(PollGovernorTest, WithoutALimitThereAreNoLooks) {
  PollGovernor none{PollLimits{}};
  EXPECT_EQ(none.begin(now, 1), Duration::zero());
}

TEST_F(PollGovernorTest, AsLongAsLooksFindSomethingEachWaitBeginsWithOne) {
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(wait(30us));
  }
}

TEST_F(PollGovernorTest, ManyAnswersAreNotLookedFor) {
  EXPECT_NE(governor.begin(now, PollGovernor::kMostAnswers), Duration::zero());
  EXPECT_EQ(governor.begin(now, PollGovernor::kMostAnswers + 1), Duration::zero());
}

TEST_F(PollGovernorTest, RightAfterManyAnswersThereAreNoLooksEither) {
  EXPECT_FALSE(wait(10us, 32));
  int sleeps = 1;
  while (!wait(10us, 0)) {
    ++sleeps;
  }
  EXPECT_EQ(sleeps, 32 - static_cast<int>(PollGovernor::kMostAnswers));
}

TEST_F(PollGovernorTest, LooksInVainEndInSleepsThatGetMoreFromTryToTry) {
  while (sleeps(1ms) == 0) {
  }
  EXPECT_EQ(looked_for, 4 * 100us + 100us);  // a best score's worth, and the first try
  EXPECT_EQ(sleeps(1ms), 32);
  EXPECT_EQ(sleeps(1ms), 64);
  for (int i = 0; i < 10; ++i) {
    EXPECT_LE(sleeps(1ms), static_cast<int>(PollGovernor::kMostSleeps));
  }
  EXPECT_EQ(sleeps(1ms), static_cast<int>(PollGovernor::kMostSleeps));
}

TEST_F(PollGovernorTest, ATryThatFindsSomethingIsFollowedByLooks) {
  for (int i = 0; i < 1000; ++i) {
    wait(1ms);
  }
  static_cast<void>(sleeps(10us));
  EXPECT_TRUE(wait(10us));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(wait(10us));
  }
  // And what was learned is forgotten: the next time begins with few sleeps.
  while (sleeps(1ms) == 0) {
  }
  EXPECT_EQ(sleeps(1ms), 2 * static_cast<int>(PollGovernor::kFewestSleeps));
}

TEST_F(PollGovernorTest, HalfOfThemInVainAreTooMany) {
  int looks = 0;
  for (int i = 0; i < 10000; ++i) {
    const Duration before = looked_for;
    wait(i % 2 == 0 ? 10us : 1ms);
    looks += looked_for != before ? 1 : 0;
  }
  EXPECT_LT(looks, 2000);
}

TEST_F(PollGovernorTest, ThreeOfFourThatFindSomethingAreEnough) {
  int found = 0;
  for (int i = 0; i < 10000; ++i) {
    found += wait(i % 4 != 0 ? 10us : 1ms) ? 1 : 0;
  }
  EXPECT_EQ(found, 7500);
}

TEST_F(PollGovernorTest, RequestsAndAnswersAreLearnedApart) {
  for (int i = 0; i < 100; ++i) {
    wait(1ms, 0);
  }
  EXPECT_FALSE(wait(10us, 0));
  EXPECT_TRUE(wait(10us, 1));
}

TEST_F(PollGovernorTest, AProcessorThatOthersWantIsLeftToThem) {
  ASSERT_TRUE(wait(10us));
  governor.note_preemptions(now, 7);
  EXPECT_FALSE(wait(10us));
  EXPECT_FALSE(wait(10us, 0));
  now += PollGovernor::kShortestRest;
  EXPECT_TRUE(wait(10us));
}

TEST_F(PollGovernorTest, TheyHaveItForLongerEachTime) {
  Duration rest = PollGovernor::kShortestRest;
  for (std::uint64_t count = 10; count < 200; count += 10) {
    governor.note_preemptions(now, count);
    now += rest - 100us;
    EXPECT_FALSE(wait(50us));
    now += 50us;
    EXPECT_TRUE(wait(50us));
    rest = std::min<Duration>(rest * 2, PollGovernor::kLongestRest);
  }
}

TEST_F(PollGovernorTest, OnePreemptionIsNoneAndForgetsThoseBefore) {
  governor.note_preemptions(now, 10);
  governor.note_preemptions(now, 20);
  now += 2 * PollGovernor::kShortestRest;
  ASSERT_TRUE(wait(10us));
  governor.note_preemptions(now, 21);
  EXPECT_TRUE(wait(10us));
  governor.note_preemptions(now, 31);
  now += PollGovernor::kShortestRest;
  EXPECT_TRUE(wait(10us));
}

TEST_F(PollGovernorTest, PreemptionsAreAskedForOnceInSomeLooks) {
  int wanted = 0;
  for (std::uint32_t i = 0; i < 10 * PollGovernor::kLooksPerSample; ++i) {
    wait(10us);
    wanted += governor.wants_preemptions() ? 1 : 0;
  }
  EXPECT_EQ(wanted, 10);
}

TEST_F(PollGovernorTest, LooksTakeTheirShareOfTheTimeAndNoMore) {
  governor = PollGovernor{PollLimits{100us, 10}};
  const TimePoint began = now;
  while (now < began + 10s) {
    wait(90us);
  }
  EXPECT_LE(looked_for, 1s + PollGovernor::kMostSaved);
  EXPECT_GE(looked_for, 900ms);
}

TEST_F(PollGovernorTest, AThreadThatStoodStillInTheMiddleOfALookLooksAgain) {
  governor = PollGovernor{PollLimits{100us, 1}};
  ASSERT_NE(governor.begin(now, 1), Duration::zero());
  governor.end(now, now + 5s, true);
  now += 5s;
  EXPECT_EQ(governor.begin(now, 1), Duration::zero());
  now += 10ms;
  EXPECT_NE(governor.begin(now, 1), Duration::zero());
}

TEST_F(PollGovernorTest, ALookThatSomethingElseHasEndedWasNotInVain) {
  for (int i = 0; i < 1000; ++i) {
    ASSERT_NE(governor.begin(now, 1), Duration::zero());
    governor.end(now, now + 20us, false);
    now += 20us;
  }
  EXPECT_TRUE(wait(10us));
}

TEST_F(PollGovernorTest, WhatWasNotTakenIsSavedForAMoment) {
  governor = PollGovernor{PollLimits{100us, 10}};
  now += 1h;
  while (wait(90us)) {
  }
  EXPECT_GE(looked_for, PollGovernor::kMostSaved);
  EXPECT_LE(looked_for, PollGovernor::kMostSaved * 5 / 4);
}

}  // namespace
}  // namespace iscsi_blkback
