// LogoutSequence: when the Logout goes, and when its connection is given up.
#include "initiator/session/logout_sequence.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class LogoutSequenceTest : public testing::Test {
 protected:
  static constexpr bool kNothing = false;  // outstanding
  static constexpr bool kCommands = true;

  TimePoint now{1h};
  LogoutSequence logout;
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
  EXPECT_EQ(logout.next_event(), now + 4s) << "four fifths";
  EXPECT_FALSE(logout.end_drain(now + 3999ms));
  EXPECT_TRUE(logout.end_drain(now + 4s));
  EXPECT_FALSE(logout.end_drain(now + 4s)) << "once";
  EXPECT_TRUE(logout.due(kCommands));
  EXPECT_EQ(logout.next_event(), now + 5s);
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
  EXPECT_EQ(logout.next_event(), now + 6s);
  EXPECT_FALSE(logout.over(now + 5999ms));
  EXPECT_TRUE(logout.over(now + 6s));
  LogoutSequence late;
  late.begin(now, LogoutSequence::of_stop(5s));
  late.send(now + 4s, 5s);
  EXPECT_EQ(late.next_event(), now + 5s);
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
  EXPECT_EQ(logout.next_event(), now + 4s);
  EXPECT_TRUE(logout.over(now + 5s));
}

TEST_F(LogoutSequenceTest, AStopDoesNotPutItsEndOff) {
  logout.begin(now, LogoutSequence::asked_for(1));
  logout.hasten(now, LogoutSequence::of_stop(5s));
  EXPECT_EQ(logout.next_event(), now + 500ms);
  EXPECT_TRUE(logout.over(now + 1s));
}

TEST_F(LogoutSequenceTest, OfALostConnectionNothingIsLeft) {
  logout.begin(now, LogoutSequence::of_stop(5s));
  ASSERT_TRUE(logout.end_drain(now + 4s));
  logout.send(now + 4s, 5s);
  logout.forget_connection();
  EXPECT_FALSE(logout.sent());
  logout.begin(now, LogoutSequence::of_stop(5s));
  EXPECT_FALSE(logout.due(kCommands));
}

}  // namespace
}  // namespace iscsi_blkback
