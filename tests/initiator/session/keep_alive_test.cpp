// KeepAlive: when it asks, when it gives up, and from what moment both are measured.
#include "initiator/session/keep_alive.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class KeepAliveTest : public testing::Test {
 protected:
  using Verdict = KeepAlive::Verdict;
  static constexpr bool kIdle = false;
  static constexpr bool kBusy = true;

  KeepAliveTest() {
    options.stall_probe = 200ms;
    options.path_timeout = 2000ms;
    options.noop_out_interval = 5000ms;
    options.noop_out_timeout = 4000ms;
    keep_alive.on_received(start);
  }
  // From the start on, if nothing happens any more.
  [[nodiscard]] Duration first(Verdict verdict, bool busy) const {
    for (Duration after{}; after < 20s; after += 1ms) {
      if (keep_alive.look(start + after, busy) == verdict) {
        return after;
      }
    }
    return Duration::max();
  }

  // Runs for this time; returns when the next look was due, from the start on.
  Duration due_after(Duration at_most) {
    due = 0;
    static_cast<void>(reactor.run_until([this] { return due != 0; }, at_most));
    return due == 0 ? Duration::max() : reactor.now() - start;
  }

  SimReactor reactor{1};
  SessionOptions options;
  TimePoint start = reactor.now();
  int due = 0;
  KeepAlive keep_alive{reactor, options,
                       [](void* self) noexcept { ++static_cast<KeepAliveTest*>(self)->due; }, this};
};

TEST_F(KeepAliveTest, AnIdleTargetIsAskedAfterTheInterval) {
  EXPECT_EQ(first(Verdict::ask, kIdle), 5000ms);
}

TEST_F(KeepAliveTest, ASilentTargetWithCommandsIsAskedAfterStallProbe) {
  EXPECT_EQ(first(Verdict::ask, kBusy), 200ms);
  EXPECT_EQ(keep_alive.next_look(start, kBusy), start + 200ms);
}

TEST_F(KeepAliveTest, SilenceBeginsWithTheFirstCommandWhereNothingWasOutstanding) {
  keep_alive.on_busy(start + 3s);
  EXPECT_EQ(first(Verdict::ask, kBusy), 3200ms);
}

TEST_F(KeepAliveTest, SilenceBeginsAnewWithWhatArrives) {
  keep_alive.on_busy(start);
  keep_alive.on_received(start + 1s);
  EXPECT_EQ(first(Verdict::ask, kBusy), 1200ms);
}

TEST_F(KeepAliveTest, WithoutLimitsItNeverAsks) {
  options.stall_probe = 0ms;
  options.noop_out_interval = 0ms;
  EXPECT_EQ(first(Verdict::ask, kBusy), Duration::max());
  EXPECT_EQ(keep_alive.next_look(start, kBusy), TimePoint::max());
}

TEST_F(KeepAliveTest, ThePingOfAnIdleTargetHasNoopOutTimeout) {
  keep_alive.queue_ping(start + 1s);
  EXPECT_EQ(first(Verdict::silent, kIdle), 5000ms);
}

TEST_F(KeepAliveTest, OneThatSomebodyAskedForHasPathTimeout) {
  keep_alive.ask();
  keep_alive.queue_ping(start + 1s);
  EXPECT_EQ(first(Verdict::silent, kIdle), 3000ms);
}

TEST_F(KeepAliveTest, WithCommandsTheSilenceIsPathTimeoutInAll) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start + 200ms);
  EXPECT_EQ(first(Verdict::silent, kBusy), 2000ms);
  EXPECT_EQ(keep_alive.next_look(start, kBusy), start + 2000ms);
}

TEST_F(KeepAliveTest, ALatePingHasThreeQuartersOfItsShareAllTheSame) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start + 1900ms);
  EXPECT_EQ(first(Verdict::silent, kBusy), 1900ms + 1350ms);
}

TEST_F(KeepAliveTest, WhatArrivesPutsTheEndOff) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start + 200ms);
  keep_alive.on_received(start + 1500ms);
  EXPECT_EQ(first(Verdict::silent, kBusy), 3500ms);
}

TEST_F(KeepAliveTest, WhatArrivesPutsTheEndOfAnIdleTargetsPingOffToo) {
  keep_alive.queue_ping(start + 1s);
  keep_alive.on_received(start + 3s);
  EXPECT_EQ(first(Verdict::silent, kIdle), 7000ms);
}

TEST_F(KeepAliveTest, AnAnswerIsToldOnceAndOnlyIfSomebodyAsked) {
  keep_alive.queue_ping(start);
  EXPECT_FALSE(keep_alive.answered(start, kIdle));
  EXPECT_FALSE(keep_alive.take_answer());
  keep_alive.ask();
  keep_alive.queue_ping(start);
  EXPECT_TRUE(keep_alive.answered(start, kIdle));
  EXPECT_FALSE(keep_alive.ping_outstanding());
  EXPECT_TRUE(keep_alive.take_answer());
  EXPECT_FALSE(keep_alive.take_answer());
}

TEST_F(KeepAliveTest, APingIsSentOnceItIsQueued) {
  EXPECT_FALSE(keep_alive.take_queued());
  keep_alive.queue_ping(start);
  EXPECT_TRUE(keep_alive.ping_outstanding());
  EXPECT_FALSE(keep_alive.ping_sent());
  EXPECT_TRUE(keep_alive.take_queued());
  EXPECT_FALSE(keep_alive.take_queued());
  EXPECT_TRUE(keep_alive.ping_sent());
}

TEST_F(KeepAliveTest, ThePingOfALostConnectionIsForgotten) {
  keep_alive.ask();
  keep_alive.queue_ping(start);
  keep_alive.forget_connection();
  EXPECT_FALSE(keep_alive.ping_outstanding());
  EXPECT_FALSE(keep_alive.take_queued());
  keep_alive.queue_ping(start);
  EXPECT_EQ(first(Verdict::silent, kIdle), 4000ms) << "nobody has asked for this one";
}

TEST_F(KeepAliveTest, ATargetWhoseKernelAnswersIsWaitedForAfterACommandWasGivenUpBefore) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start + 200ms);
  const TimePoint end = start + 2000ms;
  ASSERT_EQ(keep_alive.look(end, kBusy), Verdict::silent);
  EXPECT_FALSE(keep_alive.goes_on(end, kBusy, {.may_wait = true}));
  EXPECT_FALSE(keep_alive.goes_on(end, kBusy,
                                  {.may_wait = true, .peer_silence = 3s, .given_up_before = true}));
  EXPECT_TRUE(keep_alive.goes_on(end, kBusy, {.may_wait = true, .given_up_before = true}));
  EXPECT_TRUE(keep_alive.waits_on());
  EXPECT_EQ(keep_alive.look(start + 2001ms, kBusy), Verdict::silent) << "it is looked at again";
  EXPECT_EQ(keep_alive.end_silence(start + 3s), 3s);
  EXPECT_FALSE(keep_alive.waits_on());
}

TEST_F(KeepAliveTest, NobodyIsWaitedForWithoutCommandsOrWhenTheSessionStops) {
  keep_alive.queue_ping(start);
  EXPECT_FALSE(keep_alive.goes_on(start + 4000ms, kIdle, {.given_up_before = true}));
}

TEST_F(KeepAliveTest, ASilenceThatTheTargetHasBrokenBeforeIsWaitedOutOnceMore) {
  EXPECT_FALSE(keep_alive.may_wait_on(start, false));
  EXPECT_EQ(keep_alive.end_silence(start + 3s), 3s);
  keep_alive.on_received(start + 3s);
  EXPECT_TRUE(keep_alive.may_wait_on(start + 3s, false));
  keep_alive.queue_ping(start + 3200ms);
  EXPECT_TRUE(keep_alive.goes_on(start + 8s, kBusy, {.may_wait = true}));
  EXPECT_FALSE(keep_alive.goes_on(start + 9s, kBusy, {.may_wait = true})) << "twice as long";
}

TEST_F(KeepAliveTest, WakesUpWhenAnIdleTargetIsToBeAsked) {
  keep_alive.schedule(start, kIdle);
  EXPECT_EQ(due_after(1min), 5000ms);
  EXPECT_EQ(due_after(1min), Duration::max()) << "once, until it is scheduled again";
}

TEST_F(KeepAliveTest, ACommandWakesItUpEarlier) {
  keep_alive.schedule(start, kIdle);
  reactor.run_for(1s);
  keep_alive.on_busy(start + 1s);
  EXPECT_EQ(due_after(1min), 1200ms);
}

TEST_F(KeepAliveTest, CommandAfterCommandArmsTheTimerOnce) {
  keep_alive.schedule(start, kIdle);
  for (Duration after = 0ms; after < 200ms; after += 10ms) {
    keep_alive.on_busy(start + after);
    keep_alive.on_received(start + after);
    reactor.run_for(10ms);
  }
  EXPECT_EQ(due, 1) << "when the first one would have been silent";
  EXPECT_EQ(keep_alive.look(reactor.now(), kBusy), Verdict::lives);
}

TEST_F(KeepAliveTest, AnAnsweredPingIsFollowedByTheNextOne) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start);
  keep_alive.schedule(start, kBusy);
  keep_alive.on_received(start + 10ms);
  keep_alive.answered(start + 10ms, kBusy);
  EXPECT_EQ(due_after(1min), 210ms);
}

TEST_F(KeepAliveTest, WhileASilentTargetIsWaitedForItIsLookedAtOften) {
  keep_alive.on_busy(start);
  keep_alive.queue_ping(start + 200ms);
  ASSERT_TRUE(keep_alive.goes_on(start + 2s, kBusy, {.may_wait = true, .given_up_before = true}));
  EXPECT_EQ(keep_alive.next_look(start + 2s, kBusy), start + 2125ms);
  options.path_timeout = 80ms;
  EXPECT_EQ(keep_alive.next_look(start + 2s, kBusy), start + 2010ms);
}

TEST_F(KeepAliveTest, OneThatIsStoppedDoesNotWakeUp) {
  keep_alive.queue_ping(start);
  keep_alive.schedule(start, kIdle);
  keep_alive.stop();
  keep_alive.answered(start, kIdle);
  EXPECT_EQ(due_after(1min), Duration::max());
}

}  // namespace
}  // namespace iscsi_blkback
