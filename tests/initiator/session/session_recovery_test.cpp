// Commands that are stuck on a live connection: they are aborted, or the LUN is reset, or the
// connection is dropped; a command never completes while the target may still execute it.
#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class SessionRecoveryTest : public SessionTest {
 protected:
  static SessionOptions options() {
    SessionOptions options = test_session_options();
    options.command_timeout = seconds(8);
    options.abort_timeout = seconds(4);
    options.lu_reset_timeout = seconds(6);
    return options;
  }
  template <class Condition>
  [[nodiscard]] bool runs(Condition condition) {
    return runs_until(reactor, condition);
  }
  // How long a write takes that the target never answers.
  Duration stuck_write(TestSession& initiator, TestCommand& write) {
    target->inject({.answer = false});
    const TimePoint start = reactor.now();
    write.submit_write(initiator.session, 0, test_pattern(4096, 1));
    EXPECT_TRUE(runs([&] { return write.done; }));
    return reactor.now() - start;
  }
};

TEST_F(SessionRecoveryTest, StuckCommandIsAbortedAndTheSessionLivesOn) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  TestCommand write;
  const Duration took = stuck_write(initiator, write);
  EXPECT_EQ(write.task.outcome, TaskOutcome::aborted);
  EXPECT_GE(took, seconds(8));
  EXPECT_LE(took, seconds(9));
  EXPECT_EQ(target->counters.aborts, 1U);
  EXPECT_EQ(initiator.observer.downs, 0);
  EXPECT_EQ(initiator.session.statistics().stuck_commands, 1U);
  TestCommand read;
  read.submit_read(initiator.session, 0, 8);
  ASSERT_TRUE(runs([&] { return read.done; }));
  EXPECT_TRUE(read.task.succeeded());
}

TEST_F(SessionRecoveryTest, MillisecondsAreMilliseconds) {
  SessionOptions quick = options();
  quick.command_timeout = milliseconds(80);
  TestSession initiator(reactor, quick);
  ASSERT_TRUE(initiator.start());
  TestCommand write;
  const Duration took = stuck_write(initiator, write);
  EXPECT_GE(took, milliseconds(80));
  EXPECT_LE(took, milliseconds(100));
}

TEST_F(SessionRecoveryTest, ZeroWaitsForEver) {
  SessionOptions patient = options();
  patient.command_timeout = milliseconds(0);
  TestSession initiator(reactor, patient);
  ASSERT_TRUE(initiator.start());
  target->inject({.hold = true});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(seconds(3600));
  EXPECT_FALSE(write.done);
  target->release_held();
  ASSERT_TRUE(runs([&] { return write.done; }));
  EXPECT_TRUE(write.task.succeeded());
}

TEST_F(SessionRecoveryTest, CommandThatIsOnlySlowIsNotAborted) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 50, .extra_delay = milliseconds(7900)});
  std::vector<TestCommand> commands(50);
  for (TestCommand& command : commands) {
    command.submit_read(initiator.session, 0, 8);
  }
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_EQ(target->counters.aborts, 0U);
  for (const TestCommand& command : commands) {
    EXPECT_TRUE(command.task.succeeded());
  }
}

TEST_F(SessionRecoveryTest, ManyStuckCommandsAreAllAborted) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 0, .answer = false});
  std::vector<TestCommand> commands(100);
  const TimePoint start = reactor.now();
  for (TestCommand& command : commands) {
    command.submit_write(initiator.session, 0, test_pattern(512, 1));
  }
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_LE(reactor.now() - start, seconds(14)) << "sixteen at each look";
  for (const TestCommand& command : commands) {
    EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
  }
  EXPECT_EQ(initiator.observer.downs, 0);
}

TEST_F(SessionRecoveryTest, AbortThatIsNotAnsweredDropsTheConnection) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
  TestCommand write;
  const Duration took = stuck_write(initiator, write);
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_GE(took, seconds(12));
  EXPECT_LE(took, seconds(14));
  EXPECT_EQ(target->counters.resets, 0U) << "others may use the LUN";
  EXPECT_THAT(initiator.observer.reason, HasSubstr("nor does it abort it"));
}

TEST_F(SessionRecoveryTest, AbortThatIsRefusedDropsTheConnectionAtOnce) {
  for (const std::uint8_t code : {std::uint8_t{5}, std::uint8_t{6}, std::uint8_t{255}}) {
    TestSession initiator(reactor, options());
    ASSERT_TRUE(initiator.start());
    target->fault_functions(TaskFunction::abort_task,
                            SimFunctionFault{.execute = false, .response = code});
    TestCommand write;
    EXPECT_LE(stuck_write(initiator, write), seconds(9));
    EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  }
}

// The target says that there is no such task, but has not answered it: it may be in the middle of
// that. Nothing is given up locally.
TEST_F(SessionRecoveryTest, TaskThatTheTargetDoesNotKnowIsWaitedForThenTheConnectionIsDropped) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->fault_functions(TaskFunction::abort_task,
                          SimFunctionFault{.execute = false, .response = 1});
  TestCommand write;
  const Duration took = stuck_write(initiator, write);
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_GE(took, seconds(12));
  EXPECT_LE(took, seconds(14));
}

TEST_F(SessionRecoveryTest, AnswerThatComesAfterNoSuchTaskIsTheAnswer) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->fault_functions(TaskFunction::abort_task,
                          SimFunctionFault{.execute = false, .response = 1});
  target->inject({.extra_delay = seconds(10)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  ASSERT_TRUE(runs([&] { return write.done; }));
  EXPECT_TRUE(write.task.succeeded());
  reactor.run_for(seconds(60));
  EXPECT_EQ(initiator.observer.downs, 0);
}

TEST_F(SessionRecoveryTest, AnswerThatComesWhileTheAbortIsUnansweredIsTheAnswer) {
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
  for (int i = 0; i < 15; ++i) {
    target->inject({.extra_delay = seconds(10)});
    TestCommand write;
    write.submit_write(initiator.session, 0, test_pattern(4096, 1));
    ASSERT_TRUE(runs([&] { return write.done; }));
    EXPECT_TRUE(write.task.succeeded());
  }
  reactor.run_for(seconds(60));
  EXPECT_EQ(initiator.observer.downs, 0);
}

TEST_F(SessionRecoveryTest, LunWhoseDiskAllowsItIsResetWhereAbortDoesNotHelp) {
  for (const SimFunctionFault& fault :
       {SimFunctionFault{.answer = false}, SimFunctionFault{.execute = false, .response = 5}}) {
    TestSession initiator(reactor, options());
    initiator.observer.consent = ResetConsent::allowed;
    ASSERT_TRUE(initiator.start());
    target->fault_functions(TaskFunction::abort_task, fault);
    const std::uint64_t resets = target->counters.resets;
    TestCommand write;
    const Duration took = stuck_write(initiator, write);
    EXPECT_EQ(write.task.outcome, TaskOutcome::aborted);
    EXPECT_LE(took, seconds(14));
    EXPECT_EQ(target->counters.resets, resets + 1);
    EXPECT_EQ(initiator.observer.downs, 0);
  }
}

TEST_F(SessionRecoveryTest, TaskThatTheTargetDoesNotKnowIsNoReasonForAReset) {
  TestSession initiator(reactor, options());
  initiator.observer.consent = ResetConsent::allowed;
  ASSERT_TRUE(initiator.start());
  target->fault_functions(TaskFunction::abort_task,
                          SimFunctionFault{.execute = false, .response = 1});
  TestCommand write;
  const Duration took = stuck_write(initiator, write);
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_LE(took, seconds(14));
  EXPECT_EQ(target->counters.resets, 0U);
}

TEST_F(SessionRecoveryTest, ResetThatDoesNotHelpEitherDropsTheConnection) {
  target->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
  for (const SimFunctionFault& fault :
       {SimFunctionFault{.answer = false}, SimFunctionFault{.execute = false, .response = 5}}) {
    TestSession initiator(reactor, options());
    initiator.observer.consent = ResetConsent::allowed;
    ASSERT_TRUE(initiator.start());
    target->fault_functions(TaskFunction::logical_unit_reset, fault);
    const std::uint64_t resets = target->counters.resets;
    TestCommand write;
    const Duration took = stuck_write(initiator, write);
    EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
    EXPECT_LE(took, seconds(21)) << "command, abort and reset timeout";
    EXPECT_LE(target->counters.resets, resets + 1);
  }
}

TEST_F(SessionRecoveryTest, LunIsNotResetUnlessSomebodyAllowsItAndNobodyRefuses) {
  struct Case {
    ResetConsent one;
    ResetConsent other;
    std::uint64_t lun_of_one;
  };
  for (const Case& now : {Case{ResetConsent::not_concerned, ResetConsent::not_concerned, 0},
                          Case{ResetConsent::allowed, ResetConsent::not_concerned, encode_lun(1)},
                          Case{ResetConsent::allowed, ResetConsent::refused, 0},
                          Case{ResetConsent::refused, ResetConsent::allowed, 0},
                          Case{ResetConsent::refused, ResetConsent::refused, 0}}) {
    TestSession initiator(reactor, options());
    RecordingObserver second;
    initiator.session.add_observer(second);
    initiator.observer.consent = now.one;
    initiator.observer.consent_lun = now.lun_of_one;
    second.consent = now.other;
    EXPECT_FALSE(initiator.session.may_reset(0));
    ASSERT_TRUE(initiator.start());
    target->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
    TestCommand write;
    stuck_write(initiator, write);
    EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
    EXPECT_EQ(target->counters.resets, 0U);
    initiator.session.remove_observer(second);
  }
}

TEST_F(SessionRecoveryTest, WindowThatNeverOpensDropsTheConnection) {
  target->options().window = 4;
  TestSession initiator(reactor, options());
  ASSERT_TRUE(initiator.start());
  target->keep_window_closed(true);
  std::vector<TestCommand> commands(8);
  for (TestCommand& command : commands) {
    command.submit_write(initiator.session, 0, test_pattern(512, 1));
  }
  reactor.run_for(seconds(7));
  EXPECT_EQ(initiator.session.commands_in_flight(), 4U) << "four have been answered";
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_EQ(commands[3].task.outcome, TaskOutcome::completed);
  EXPECT_EQ(commands[4].task.outcome, TaskOutcome::not_sent);
  EXPECT_THAT(initiator.observer.reason, HasSubstr("window closed"));
}

TEST_F(SessionRecoveryTest, StuckCommandsAcrossTheWrapOfCmdSn) {
  SessionOptions wrapping = options();
  wrapping.initial_cmd_sn = 0xfffffffd;
  TestSession initiator(reactor, wrapping);
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 6, .answer = false});
  std::deque<TestCommand> commands;
  for (int i = 0; i < 6; ++i) {
    commands.emplace_back().submit_write(initiator.session, 0, test_pattern(512, 1));
  }
  reactor.run_for(seconds(4));
  TestCommand& later = commands.emplace_back();  // not stuck, and not ended with them
  target->inject({.extra_delay = seconds(6)});
  later.submit_write(initiator.session, 0, test_pattern(512, 1));
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(commands[i].task.outcome, TaskOutcome::aborted);
  }
  EXPECT_TRUE(later.task.succeeded());
  EXPECT_EQ(target->counters.aborts, 6U);
}

TEST_F(SessionRecoveryTest, WriteWhoseDataTakesLongIsNotStuck) {
  constexpr std::uint32_t kBurst = 8 * 1024 * 1024;
  target->options().max_burst_length = kBurst;  // one R2T for all of it
  SessionOptions quick = options();
  quick.max_burst_length = kBurst;
  quick.command_timeout = milliseconds(300);
  quick.stall_probe = quick.path_timeout = seconds(60);
  TestSession initiator(reactor, quick);
  ASSERT_TRUE(initiator.start());
  reactor.network().set_buffers(test_address(1), 8192, 8192);
  reactor.network().set_latency(test_address(1), milliseconds(1));  // some megabytes a second
  TestCommand write;
  const TimePoint start = reactor.now();
  write.submit_write(initiator.session, 0, test_pattern(4 * 1024 * 1024, 7));
  ASSERT_TRUE(runs([&] { return write.done; }));
  EXPECT_GE(reactor.now() - start, milliseconds(400)) << "or the test shows nothing";
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_EQ(target->counters.aborts, 0U);
}

class SlowLinkTest : public SessionRecoveryTest,
                     public ::testing::WithParamInterface<std::uint32_t> {};
// The first CmdSN: also such that it passes zero while commands wait behind older ones.
INSTANTIATE_TEST_SUITE_P(FirstCmdSn, SlowLinkTest, ::testing::Values(1U, 0xfffffff8U, 0x7ffffff8U));

TEST_P(SlowLinkTest, WithADeepQueueIsNotStuck) {
  SessionOptions quick = options();
  quick.command_timeout = milliseconds(60);
  quick.initial_cmd_sn = GetParam();
  TestSession initiator(reactor, quick);
  ASSERT_TRUE(initiator.start());
  // Each receive takes little, so that the data of all the commands trickles in for seconds.
  reactor.network().set_latency(test_address(1), milliseconds(2));
  reactor.network().set_buffers(test_address(1), 65536, 4096);
  std::vector<TestCommand> commands(16);
  for (TestCommand& command : commands) {
    command.submit_read(initiator.session, 0, 1024);
    reactor.run_for(std::chrono::microseconds(100));  // served in the order of submission
  }
  const TimePoint start = reactor.now();
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_GE(reactor.now() - start, milliseconds(200)) << "or the test shows nothing";
  EXPECT_EQ(target->counters.aborts, 0U);
  for (const TestCommand& command : commands) {
    EXPECT_TRUE(command.task.succeeded());
  }
}

}  // namespace
}  // namespace iscsi_blkback
