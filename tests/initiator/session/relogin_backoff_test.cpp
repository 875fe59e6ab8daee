// ReloginBackoff: how long a session waits before it tries again, and what its failures add up to.
#include "initiator/session/relogin_backoff.h"

#include <gmock/gmock.h>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class ReloginBackoffTest : public testing::Test {
 protected:
  using Cause = RepeatedEnds::Cause;
  static constexpr std::uint64_t kLeast = 0;  // of the jitter
  static constexpr bool kNextOffer = true;

  ReloginBackoffTest() {
    options.relogin_backoff_min = 100ms;
    options.relogin_backoff_max = 1000ms;
    options.initiator_name = "iqn.2026-01.test:initiator";
    backoff.start(now);
  }
  Duration fails() {
    backoff.connecting();
    static_cast<void>(backoff.ended(now, false, 0s));
    return backoff.next_wait(kLeast, false);
  }
  // Logged in for so long. Returns whether the end is one of many.
  bool was_up(Duration time, Cause cause) {
    backoff.connecting();
    backoff.logged_in(now);
    now += time;
    backoff.blame(cause);
    backoff.lost(now);
    const bool one_of_many = backoff.ended(now, true, 2s);
    now += backoff.next_wait(kLeast, false);
    return one_of_many;
  }

  SessionOptions options;
  TimePoint now{1h};
  ReloginBackoff backoff{options};
};

TEST_F(ReloginBackoffTest, DoublesUpToTheLongest) {
  std::vector<Duration> waits;
  for (int i = 0; i < 6; ++i) {
    waits.push_back(fails());
  }
  EXPECT_EQ(waits, (std::vector<Duration>{50ms, 100ms, 200ms, 400ms, 500ms, 500ms}));
}

TEST_F(ReloginBackoffTest, StaysTheLongestHoweverOftenItFails) {
  options.relogin_backoff_max = 1h;
  for (int i = 0; i < 20; ++i) {
    fails();
  }
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(fails(), 30min);
  }
}

TEST_F(ReloginBackoffTest, TheJitterIsAtMostHalfOfIt) {
  for (const std::uint64_t random : {0ULL, 1ULL, 123456789ULL, ~0ULL}) {
    ReloginBackoff other(options);
    other.start(now);
    const Duration wait = other.next_wait(random, false);
    EXPECT_GE(wait, 50ms);
    EXPECT_LE(wait, 100ms);
  }
}

TEST_F(ReloginBackoffTest, AnotherOfferOfTheSameLoginIsNoFailure) {
  EXPECT_EQ(fails(), 50ms);
  EXPECT_EQ(backoff.next_wait(kLeast, kNextOffer), 50ms);
  EXPECT_EQ(backoff.next_wait(kLeast, kNextOffer), 50ms);
  EXPECT_EQ(fails(), 100ms);
}

TEST_F(ReloginBackoffTest, ASessionThatWasUpForAWhileBeginsAnew) {
  for (int i = 0; i < 6; ++i) {
    fails();
  }
  was_up(5s, Cause::other);
  EXPECT_EQ(fails(), 100ms) << "the end was the first failure";
}

TEST_F(ReloginBackoffTest, OneThatWasNotIsAFailureMore) {
  for (int i = 0; i < 6; ++i) {
    fails();
  }
  was_up(4999ms, Cause::other);
  EXPECT_EQ(fails(), 500ms);
}

TEST_F(ReloginBackoffTest, WhatTheTargetDemandsIsWaitedForOnce) {
  backoff.demand(7s);
  EXPECT_EQ(fails(), 7s);
  EXPECT_EQ(fails(), 100ms);
}

TEST_F(ReloginBackoffTest, TheTargetCannotParkUsForLong) {
  backoff.demand(std::chrono::seconds{0xffff});
  EXPECT_EQ(fails(), 60s);
}

TEST_F(ReloginBackoffTest, ADemandThatIsShorterThanTheBackOffDoesNotShortenIt) {
  for (int i = 0; i < 6; ++i) {
    fails();
  }
  options.relogin_backoff_min = options.relogin_backoff_max = 10s;
  backoff.demand(1s);
  EXPECT_EQ(fails(), 5s);
}

TEST_F(ReloginBackoffTest, FewTriesAreNotTheEndOfIt) {
  EXPECT_TRUE(backoff.still_trying(now));
  fails();
  fails();
  EXPECT_TRUE(backoff.still_trying(now + 9s)) << "only two";
  EXPECT_FALSE(backoff.still_trying(now + 10s)) << "however few";
  fails();
  EXPECT_TRUE(backoff.still_trying(now + 999ms)) << "in less than a second";
  EXPECT_FALSE(backoff.still_trying(now + 1s));
}

TEST_F(ReloginBackoffTest, ATargetThatBreaksTheSameRuleThreeTimesIsTriedSeldom) {
  EXPECT_FALSE(was_up(10ms, Cause::broken_rule));
  EXPECT_FALSE(was_up(10ms, Cause::broken_rule));
  EXPECT_TRUE(was_up(10ms, Cause::broken_rule));
  EXPECT_TRUE(backoff.keeps_ending(now, false));
  EXPECT_THAT(backoff.that_it_keeps_ending({ErrorCode::protocol, "T broke a rule"}, "T").message,
              HasSubstr("T broke a rule (3 times in a row"));
  EXPECT_GE(fails(), 500ms);
}

TEST_F(ReloginBackoffTest, ItIsBelievedOnceItHasLasted) {
  for (int i = 0; i < 3; ++i) {
    was_up(10ms, Cause::broken_rule);
  }
  backoff.connecting();
  backoff.logged_in(now);
  EXPECT_TRUE(backoff.keeps_ending(now + 4min, true));
  EXPECT_FALSE(backoff.keeps_ending(now + 5min, true));
  EXPECT_TRUE(backoff.keeps_ending(now + 5min, false)) << "not up any more";
}

TEST_F(ReloginBackoffTest, AnotherHostWithTheSameNameIsNamed) {
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(was_up(1s, Cause::ended_by_target));
  }
  EXPECT_TRUE(was_up(1s, Cause::ended_by_target));
  EXPECT_THAT(backoff.that_it_keeps_ending({ErrorCode::unavailable, "lost"}, "T").message,
              HasSubstr("T has ended this session shortly after its login, 5 times in a row"));
}

TEST_F(ReloginBackoffTest, TheBlameIsTheConnectionsAlone) {
  was_up(10ms, Cause::broken_rule);
  was_up(10ms, Cause::broken_rule);
  backoff.blame(Cause::broken_rule);  // of the one that has gone already
  backoff.connecting();
  EXPECT_FALSE(backoff.ended(now, false, 0s));
}

TEST_F(ReloginBackoffTest, AStartForgetsAll) {
  for (int i = 0; i < 6; ++i) {
    was_up(10ms, Cause::broken_rule);
  }
  backoff.demand(50s);
  backoff.start(now);
  EXPECT_FALSE(backoff.keeps_ending(now, false));
  EXPECT_TRUE(backoff.still_trying(now));
  EXPECT_EQ(fails(), 50ms);
}

}  // namespace
}  // namespace iscsi_blkback
