// What a session does when the connection, the target or the login fails.
#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class SessionFailureTest : public SessionTest {
 protected:
  // The target does not answer the write, and wants to be left within limit_s.
  void request_logout_of_a_stuck_command(TestSession& initiator, TestCommand& write,
                                         std::uint16_t limit_s) {
    ASSERT_TRUE(initiator.start());
    target->inject({.answer = false});
    write.submit_write(initiator.session, 0, test_pattern(4096, 1));
    reactor.run_for(milliseconds(100));
    target->send_async_message(AsyncEvent::logout_request, 0, 0, limit_s);
  }
};

TEST_F(SessionFailureTest, LostConnectionIsLoggedInAgainQuickly) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.run_for(seconds(10));
  reactor.network().reset_connections(test_address(1));
  const TimePoint lost = reactor.now();
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_LE(reactor.now() - lost, milliseconds(150));
  EXPECT_EQ(initiator.observer.downs, 1);
  EXPECT_EQ(initiator.session.login_epoch(), 2U);
}

TEST_F(SessionFailureTest, TasksCompleteWithConnectionLostAfterTheObserversHeard) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 0, .hold = true});
  TestCommand read;
  TestCommand write;
  read.submit_read(initiator.session, 0, 8);
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  initiator.observer.tasks_done = [&] { return (read.done ? 1 : 0) + (write.done ? 1 : 0); };
  ASSERT_TRUE(runs_until(reactor, [&] { return target->held() == 2; }));
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done && write.done; }));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(initiator.observer.downs, 1);
  EXPECT_EQ(initiator.observer.tasks_done_at_down, 0);
}

TEST_F(SessionFailureTest, CommandsThatWaitedForTheWindowWereNotSent) {
  target->options().window = 2;
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 0, .hold = true});
  std::vector<TestCommand> commands(5);
  for (TestCommand& command : commands) {
    command.submit_test_unit_ready(initiator.session);
  }
  ASSERT_TRUE(runs_until(reactor, [&] { return target->held() == 2; }));
  initiator.session.drop({ErrorCode::unavailable, "checker"});
  EXPECT_FALSE(commands[4].done) << "completed from inside drop()";
  ASSERT_TRUE(runs_until(reactor, [&] { return commands[4].done; }));
  EXPECT_EQ(commands[0].task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(commands[1].task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(commands[2].task.outcome, TaskOutcome::not_sent);
  EXPECT_EQ(commands[4].task.outcome, TaskOutcome::not_sent);
  EXPECT_EQ(initiator.observer.reason, "checker");
}

TEST_F(SessionFailureTest, LoginAfterALossTerminatesTheOldTasks) {
  target->options().linger_delay = seconds(5);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.execute = true, .extra_delay = milliseconds(10)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(5));
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_EQ(target->counters.terminated_tasks, 1U);
  reactor.run_for(seconds(20));
  EXPECT_EQ(target->counters.executed_after_close, 0U);
  EXPECT_EQ(lun->counters.writes, 0U);
}

TEST_F(SessionFailureTest, SiblingPortalOfTheGroupFencesTheOldSession) {
  target->options().linger_delay = seconds(5);
  TestSession initiator(reactor, test_session_options(1));
  ASSERT_TRUE(initiator.start());
  target->inject({.execute = true, .extra_delay = milliseconds(10)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(5));
  reactor.network().set_refusing(test_address(1), true);
  reactor.network().reset_connections(test_address(1));
  SessionOptions fence_options = test_session_options(2);
  fence_options.isid = test_session_options(1).isid;
  TestSession fence(reactor, fence_options);
  ASSERT_TRUE(fence.start());
  EXPECT_EQ(target->counters.terminated_tasks, 1U);
  fence.stop();
}

TEST_F(SessionFailureTest, AnotherPortalGroupFencesNothing) {
  target->options().linger_delay = seconds(5);
  TestSession initiator(reactor, test_session_options(1));
  ASSERT_TRUE(initiator.start());
  target->inject({.execute = true, .extra_delay = milliseconds(10)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(5));
  reactor.network().set_refusing(test_address(1), true);
  reactor.network().reset_connections(test_address(1));
  SessionOptions other = test_session_options(3);
  other.isid = test_session_options(1).isid;
  TestSession fence(reactor, other);
  ASSERT_TRUE(fence.start());
  EXPECT_EQ(target->counters.terminated_tasks, 0U);
  reactor.run_for(seconds(20));
  EXPECT_EQ(target->counters.executed_after_close, 1U);
}

TEST_F(SessionFailureTest, HungTargetIsFoundWithinPathTimeout) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.run_for(seconds(7));
  target->set_hung(true);
  TestCommand read;
  const TimePoint start = reactor.now();
  read.submit_read(initiator.session, 0, 8);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  EXPECT_GE(reactor.now() - start, milliseconds(1900));
  EXPECT_LE(reactor.now() - start, milliseconds(2300));
  EXPECT_THAT(initiator.observer.reason, HasSubstr("stopped answering"));
  target->set_hung(false);
  EXPECT_TRUE(initiator.up());
}

TEST_F(SessionFailureTest, SilentlyDroppedPacketsAreFoundWithinPathTimeout) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.network().set_dropping(test_address(1), true);
  TestCommand write;
  const TimePoint start = reactor.now();
  write.submit_write(initiator.session, 0, test_pattern(262144, 1));
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_LE(reactor.now() - start, milliseconds(2300));
  reactor.run_for(seconds(30));
  reactor.network().set_dropping(test_address(1), false);
  EXPECT_TRUE(initiator.up());
}

TEST_F(SessionFailureTest, IdleSessionToAHungTargetIsFoundByThePing) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->set_hung(true);
  const TimePoint start = reactor.now();
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.downs == 1; }));
  EXPECT_GE(reactor.now() - start, seconds(9));
  EXPECT_LE(reactor.now() - start, milliseconds(10500));
}

TEST_F(SessionFailureTest, SlowCommandOnALivingSessionIsWaitedFor) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.extra_delay = seconds(29)});  // command_timeout is 30
  TestCommand read;
  read.submit_read(initiator.session, 0, 8);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(initiator.session.login_epoch(), 1U);
}

TEST_F(SessionFailureTest, DeadPortalIsTriedForEverWithBackOff) {
  target->stop();
  TestSession initiator(reactor, test_session_options());
  initiator.session.start();
  reactor.run_for(seconds(100));
  const std::uint64_t failures = initiator.session.statistics().login_failures;
  // A wait is between half of relogin_backoff_max (1 s) and all of it, the first four are shorter.
  EXPECT_GE(failures, 100U);
  EXPECT_LE(failures, 204U);
  target->start();
  ASSERT_TRUE(initiator.up());
  EXPECT_EQ(initiator.observer.downs, 0) << "it was never up";
}

TEST_F(SessionFailureTest, SilentPortalIsGivenUpAfterConnectTimeout) {
  reactor.network().set_dropping(test_address(1), true);
  TestSession initiator(reactor, test_session_options());
  initiator.session.start();
  ASSERT_TRUE(
      runs_until(reactor, [&] { return initiator.session.statistics().login_failures == 1; }));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("does not answer"));
  reactor.network().set_dropping(test_address(1), false);
  EXPECT_TRUE(initiator.up());
}

TEST_F(SessionFailureTest, TargetThatAcceptsButDoesNotAnswerTheLogin) {
  target->set_hung(true);
  TestSession initiator(reactor, test_session_options());
  initiator.session.start();
  ASSERT_TRUE(
      runs_until(reactor, [&] { return initiator.session.statistics().login_failures == 1; }));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("does not answer the login"));
  target->set_hung(false);
  EXPECT_TRUE(initiator.up());
}

TEST_F(SessionFailureTest, RefusedLoginSaysWhyAndIsTriedAgain) {
  target->refuse_logins(0, 0x0202);
  TestSession initiator(reactor, test_session_options());
  initiator.session.start();
  ASSERT_TRUE(
      runs_until(reactor, [&] { return initiator.session.statistics().login_failures == 3; }));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("access list"));
  target->refuse_logins(0, 0);
  EXPECT_TRUE(initiator.up());
}

TEST_F(SessionFailureTest, WrongTargetNameIsSaidSo) {
  SessionOptions options = test_session_options();
  options.target_name = "iqn.2026-01.test:other";
  TestSession initiator(reactor, options);
  initiator.session.start();
  ASSERT_TRUE(
      runs_until(reactor, [&] { return initiator.session.statistics().login_failures == 1; }));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("check the IQN"));
}

TEST_F(SessionFailureTest, LogoutRequestDrainsLogsOutAndComesBack) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.extra_delay = milliseconds(500)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(100));
  target->send_async_message(AsyncEvent::logout_request, 0, 0, 5);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.downs == 1; }));
  EXPECT_FALSE(write.done) << "it has time to finish";
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_TRUE(write.done);
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_EQ(target->counters.logouts, 1U);
}

TEST_F(SessionFailureTest, LogoutRequestWithACommandThatNeverEndsDropsTheConnection) {
  TestSession initiator(reactor, test_session_options());
  TestCommand write;
  request_logout_of_a_stuck_command(initiator, write, 2);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
}

// The target would wait for a minute.
TEST_F(SessionFailureTest, StopIsBoundedAlsoAfterALogoutRequest) {
  TestSession initiator(reactor, test_session_options());
  TestCommand write;
  request_logout_of_a_stuck_command(initiator, write, 60);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.downs == 1; }));
  const TimePoint start = reactor.now();
  initiator.stop();
  EXPECT_LE(reactor.now() - start, milliseconds(5100));
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
}

TEST_F(SessionFailureTest, DropRequestHonoursTime2Wait) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  const TimePoint start = reactor.now();
  target->send_async_message(AsyncEvent::session_drop, 0, 3, 0);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_GE(reactor.now() - start, seconds(3));
}

TEST_F(SessionFailureTest, StopEndsInEveryState) {
  for (const bool dropping : {false, true}) {
    for (const int wait : {0, 1, 50, 1000, 1600, 5000}) {
      reactor.network().set_dropping(test_address(1), dropping);
      TestSession initiator(reactor, test_session_options());
      initiator.session.start();
      reactor.run_for(milliseconds(wait));
      initiator.stop();
    }
  }
  reactor.network().set_dropping(test_address(1), false);
}

TEST_F(SessionFailureTest, StopIsBoundedWhenTheTargetHangs) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->set_hung(true);
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  const TimePoint start = reactor.now();
  initiator.stop();
  EXPECT_LE(reactor.now() - start, milliseconds(5100));
  EXPECT_TRUE(write.done);
  target->set_hung(false);
}

TEST_F(SessionFailureTest, StopFromInsideACompletion) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  struct Context {
    Session& session;
    bool stopped = false;
  } context{initiator.session};
  ScsiTask task;
  task.cdb = test_unit_ready_cdb();
  task.owner = &context;
  task.on_complete = [](ScsiTask& completed) noexcept {
    auto& inside = *static_cast<Context*>(completed.owner);
    inside.session.stop([](void* owner) noexcept { static_cast<Context*>(owner)->stopped = true; },
                        &inside);
  };
  initiator.session.submit(task);
  EXPECT_TRUE(runs_until(reactor, [&] { return context.stopped; }));
}

// The submitter's buffer is its own again after completion: what the target sends later for a
// connection that was dropped must not land in it.
TEST_F(SessionFailureTest, BuffersAreUntouchedAfterCompletion) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  TestCommand fill;
  fill.submit_write(initiator.session, 0, test_pattern(1048576, 2));
  ASSERT_TRUE(runs_until(reactor, [&] { return fill.done; }));
  for (int i = 0; i < 50; ++i) {
    TestCommand read;
    read.submit_read(initiator.session, 0, 2048);
    reactor.run_for(std::chrono::microseconds(20 * i));
    initiator.session.drop({ErrorCode::unavailable, "test"});
    ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
    std::fill(read.data.begin(), read.data.end(), std::byte{0x11});
    ASSERT_TRUE(initiator.up());
    reactor.run_for(milliseconds(50));
    EXPECT_TRUE(std::all_of(read.data.begin(), read.data.end(),
                            [](std::byte byte) { return byte == std::byte{0x11}; }));
  }
}

TEST_F(SessionFailureTest, FlappingTargetIsNotAskedTooOften) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  const TimePoint end = reactor.now() + seconds(60);
  while (reactor.now() < end) {
    reactor.network().reset_connections(test_address(1));
    reactor.run_for(milliseconds(20));
  }
  // The first ones twice a second, then ever more seldom (repeated_ends.h).
  EXPECT_LE(initiator.session.statistics().logins, 15U);
  EXPECT_GE(initiator.session.statistics().logins, 8U) << "nor too seldom";
}

}  // namespace
}  // namespace iscsi_blkback
