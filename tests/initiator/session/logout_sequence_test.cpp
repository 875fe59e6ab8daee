// LogoutSequence: when the Logout goes, and when its connection is given up.
#include "initiator/session/logout_sequence.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class LogoutSequenceTest : public testing::Test {
 protected:
  static constexpr bool kNothing = false;  // outstanding
  static constexpr bool kCommands = true;

  // When it has something to decide, from now on.
  Duration due_after(Duration at_most = 5min) {
    due = 0;
    const TimePoint start = reactor.now();
    static_cast<void>(reactor.run_until([this] { return due != 0; }, at_most));
    return due == 0 ? Duration::max() : reactor.now() - start;
  }

  SimReactor reactor{1};
  const TimePoint now = reactor.now();
  int due = 0;
  LogoutSequence logout{
      reactor, [](void* self) noexcept { ++static_cast<LogoutSequenceTest*>(self)->due; }, this};
};

TEST_F(LogoutSequenceTest, IsNotDueBeforeItBegins) {
  EXPECT_FALSE(logout.due(kNothing));
}

TEST_F(LogoutSequenceTest, GoesAtOnceWhereNothingIsOutstanding) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  EXPECT_TRUE(logout.due(kNothing));
  EXPECT_FALSE(logout.due(kCommands));
}

TEST_F(LogoutSequenceTest, GoesInAnyCaseAtTheEndOfTheDrain) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  EXPECT_EQ(due_after(), 4s) << "four fifths";
  EXPECT_FALSE(logout.over(reactor.now()));
  logout.end_drain();
  EXPECT_TRUE(logout.due(kCommands));
  EXPECT_EQ(due_after(), 1s);
  EXPECT_TRUE(logout.over(reactor.now()));
}

TEST_F(LogoutSequenceTest, GoesOnce) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  logout.send(now, 5s);
  EXPECT_TRUE(logout.sent());
  EXPECT_FALSE(logout.due(kNothing));
}

TEST_F(LogoutSequenceTest, ItsAnswerHasLogoutTimeoutWithinTheLimit) {
  logout.begin(now, LogoutSequence::asked_for(60));
  logout.send(now + 1s, 5s);
  EXPECT_FALSE(logout.over(now + 5999ms));
  EXPECT_TRUE(logout.over(now + 6s));
  EXPECT_EQ(due_after(), 6s);
}

TEST_F(LogoutSequenceTest, OneThatGoesLateEndsAtTheLimit) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  logout.send(now + 4s, 5s);
  EXPECT_EQ(due_after(), 5s);
}

TEST_F(LogoutSequenceTest, WhatTheTargetAsksForLeavesItASecondForTheLogout) {
  EXPECT_EQ(LogoutSequence::asked_for(10).drain, 9s);
  EXPECT_EQ(LogoutSequence::asked_for(10).limit, 10s);
  EXPECT_EQ(LogoutSequence::asked_for(1).drain, 500ms);
  EXPECT_EQ(LogoutSequence::asked_for(0).limit, 1s);
  EXPECT_EQ(LogoutSequence::asked_for(0xffff).limit, 60s) << "it cannot keep us for hours";
}

TEST_F(LogoutSequenceTest, AStopShortensOneThatTheTargetHasAskedFor) {
  logout.begin(now, LogoutSequence::asked_for(60));
  logout.hasten(now, LogoutSequence::of_stop(5s));
  EXPECT_TRUE(logout.over(now + 5s));
  EXPECT_EQ(due_after(), 4s);
}

TEST_F(LogoutSequenceTest, AStopDoesNotPutItsEndOff) {
  logout.begin(now, LogoutSequence::asked_for(1));
  logout.hasten(now, LogoutSequence::of_stop(5s));
  EXPECT_TRUE(logout.over(now + 1s));
  EXPECT_EQ(due_after(), 500ms);
}

TEST_F(LogoutSequenceTest, OfALostConnectionNothingIsLeft) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  logout.end_drain();
  logout.send(now, 5s);
  logout.forget_connection();
  EXPECT_FALSE(logout.sent());
  EXPECT_FALSE(logout.under_way());
  EXPECT_EQ(due_after(), Duration::max());
  logout.begin(now, LogoutSequence::of_stop(5s));
  EXPECT_FALSE(logout.due(kCommands));
}

}  // namespace
}  // namespace iscsi_blkback
