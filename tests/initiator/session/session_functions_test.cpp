// Task management functions: what they end, what they leave alone, and every way to answer one.
#include <algorithm>
#include <array>

#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One function and what became of it.
struct TestFunction {
  TaskManagement function;
  bool done = false;

  void submit(Session& session, TaskFunction which, std::uint64_t lun = 0,
              const ScsiTask* task = nullptr) {
    function.function = which;
    function.lun = lun;
    function.task = task;
    function.owner = this;
    function.on_complete = [](TaskManagement& completed) noexcept {
      auto* self = static_cast<TestFunction*>(completed.owner);
      EXPECT_FALSE(self->done) << "completed twice";
      self->done = true;
    };
    session.submit(function);
    EXPECT_FALSE(done) << "completed from inside submit()";
  }
  [[nodiscard]] FunctionOutcome outcome() const { return function.outcome; }
};

class SessionFunctionsTest : public SessionTest {
 protected:
  SessionFunctionsTest() {
    target->add_lun(1, std::make_shared<SimLun>(SimLunOptions{.block_count = 2048}));
    target->inject({.count = 0, .answer = false});
  }
  void SetUp() override { ASSERT_TRUE(initiator.start()); }

  template <class Condition>
  [[nodiscard]] bool runs(Condition condition) {
    return runs_until(reactor, condition);
  }
  FunctionOutcome manage(TaskFunction which, std::uint16_t number = 0,
                         const ScsiTask* task = nullptr) {
    TestFunction function;
    function.submit(initiator.session, which, encode_lun(number), task);
    EXPECT_TRUE(runs([&] { return function.done; }));
    return function.outcome();
  }
  void submit_write(TestCommand& command, std::uint16_t number) {
    command.task.lun = encode_lun(number);
    command.submit_write(initiator.session, 0, test_pattern(4096, 1));
  }

  // A write that the target takes and never answers.
  TestCommand& stuck(std::uint16_t number = 0) {
    submit_write(commands.emplace_back(), number);
    return commands.back();
  }

  std::deque<TestCommand> commands;  // outlive the session, with which they end
  TestSession initiator{reactor, test_session_options()};
};

TEST_F(SessionFunctionsTest, AbortTaskEndsThatTaskOnly) {
  for (int i = 0; i < 3; ++i) {
    stuck();
  }
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(manage(TaskFunction::abort_task, 0, &commands[1].task), FunctionOutcome::complete);
  EXPECT_TRUE(commands[1].done) << "before the function";
  EXPECT_EQ(commands[1].task.outcome, TaskOutcome::aborted);
  EXPECT_FALSE(commands[1].task.succeeded());
  EXPECT_FALSE(commands[0].done);
  EXPECT_FALSE(commands[2].done);
  EXPECT_EQ(target->counters.aborted_tasks, 1U);
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

TEST_F(SessionFunctionsTest, AFunctionCompletesAfterTheTasksThatItEnds) {
  struct Watch {
    const TestCommand& command;
    TaskManagement function;
    bool done = false;
    bool after_the_task = false;
  } watch{stuck(), {}};
  reactor.run_for(milliseconds(10));
  watch.function.function = TaskFunction::abort_task_set;
  watch.function.owner = &watch;
  watch.function.on_complete = [](TaskManagement& function) noexcept {
    auto& self = *static_cast<Watch*>(function.owner);
    self.done = true;
    self.after_the_task = self.command.done;
  };
  initiator.session.submit(watch.function);
  ASSERT_TRUE(runs([&] { return watch.done; }));
  EXPECT_TRUE(watch.after_the_task);
}

TEST_F(SessionFunctionsTest, AbortTaskSetEndsTheTasksOfTheLun) {
  for (const std::uint16_t number :
       {std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{0}, std::uint16_t{1}}) {
    stuck(number);
  }
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(manage(TaskFunction::abort_task_set, 1), FunctionOutcome::complete);
  EXPECT_FALSE(commands[0].done || commands[2].done);
  EXPECT_TRUE(commands[1].done && commands[3].done);
}

TEST_F(SessionFunctionsTest, LogicalUnitResetEndsTheTasksOfTheLun) {
  for (const std::uint16_t number :
       {std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{0}, std::uint16_t{1}}) {
    stuck(number);
  }
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(manage(TaskFunction::logical_unit_reset, 0), FunctionOutcome::complete);
  EXPECT_TRUE(commands[0].done && commands[2].done);
  EXPECT_EQ(commands[2].task.outcome, TaskOutcome::aborted);
  EXPECT_FALSE(commands[1].done || commands[3].done);
}

// --- functions that are not answered

class UnansweredFunctionTest : public SessionFunctionsTest {
 protected:
  UnansweredFunctionTest() {
    SimFunctionFault unanswered;
    unanswered.answer = false;
    target->fault_functions(TaskFunction::logical_unit_reset, unanswered);
  }
};

TEST_F(UnansweredFunctionTest, OneWithoutADeadlineIsWaitedForAsLongAsTheConnectionLives) {
  TestFunction reset;
  reset.function.no_deadline = true;
  reset.submit(initiator.session, TaskFunction::logical_unit_reset);
  reactor.run_for(seconds(600));
  EXPECT_FALSE(reset.done);
  EXPECT_EQ(initiator.session.statistics().connection_losses, 0U);
  target->stop();
  ASSERT_TRUE(runs([&] { return reset.done; }));
  EXPECT_EQ(reset.outcome(), FunctionOutcome::connection_lost);
}

TEST_F(UnansweredFunctionTest, OneWithoutADeadlineDoesNotKeepStuckCommandsFromBeingAborted) {
  TestFunction reset;
  reset.function.no_deadline = true;
  reset.submit(initiator.session, TaskFunction::logical_unit_reset);
  const TestCommand& command = stuck();
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
  EXPECT_EQ(target->counters.aborts, 1U);
  initiator.session.abandon(reset.function);
}

TEST_F(UnansweredFunctionTest, AnAbandonedOneIsForgotten) {
  SimFunctionFault late;
  late.delay = seconds(1);
  target->fault_functions(TaskFunction::logical_unit_reset, late);
  {
    TestFunction reset;
    reset.submit(initiator.session, TaskFunction::logical_unit_reset);
    reactor.run_for(milliseconds(10));
    initiator.session.abandon(reset.function);
    EXPECT_FALSE(reset.done);
  }
  const TestCommand& command = stuck();
  reactor.run_for(seconds(2));
  EXPECT_EQ(target->counters.resets, 1U) << "the target has executed it";
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
  EXPECT_FALSE(command.done) << "sent after it";
}

TEST_F(UnansweredFunctionTest, OneThatIsAbandonedBeforeItWasSentIsNotSent) {
  TestFunction reset;
  reset.submit(initiator.session, TaskFunction::logical_unit_reset);
  initiator.session.abandon(reset.function);
  reactor.run_for(seconds(1));
  EXPECT_FALSE(reset.done);
  EXPECT_EQ(target->counters.resets, 0U);
}

TEST_F(SessionFunctionsTest, CommandsWithAHastenedTimeoutAreAbortedSooner) {
  const TestCommand& command = stuck(0);
  const TestCommand& other = stuck(1);
  reactor.run_for(milliseconds(10));
  initiator.session.hasten_timeout(encode_lun(0));
  reactor.run_for(test_session_options().command_timeout / 4);
  EXPECT_TRUE(command.done);
  EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
  EXPECT_FALSE(other.done);
}

TEST_F(SessionFunctionsTest, TargetResetsEndEveryTask) {
  for (const TaskFunction which :
       {TaskFunction::target_warm_reset, TaskFunction::target_cold_reset}) {
    const TestCommand& first = stuck(0);
    const TestCommand& second = stuck(1);
    reactor.run_for(milliseconds(10));
    EXPECT_EQ(manage(which), FunctionOutcome::complete);
    EXPECT_TRUE(first.done && second.done);
  }
}

// A function ends what was sent before it; a command that follows it is the target's to execute.
TEST_F(SessionFunctionsTest, CommandsSentAfterTheFunctionAreNotItsBusiness) {
  const TestCommand& before = stuck();
  reactor.run_for(milliseconds(10));
  reactor.network().set_latency(test_address(1), milliseconds(5));
  target->clear_faults();
  TestFunction reset;
  reset.submit(initiator.session, TaskFunction::logical_unit_reset);
  reactor.run_for(milliseconds(1));
  const TestCommand& after = stuck();
  ASSERT_TRUE(runs([&] { return reset.done && after.done; }));
  EXPECT_EQ(before.task.outcome, TaskOutcome::aborted);
  EXPECT_TRUE(after.task.succeeded());
}

TEST_F(SessionFunctionsTest, ResetOfALunThatDoesNotExist) {
  EXPECT_EQ(manage(TaskFunction::logical_unit_reset, 5), FunctionOutcome::no_such_lun);
}

// libiscsi sends an ABORT TASK for a task that it has not sent.
TEST_F(SessionFunctionsTest, CommandThatWasNotSentIsOnlyTakenBack) {
  target->options().window = 1;
  initiator.session.drop({ErrorCode::unavailable, "to log in with another window"});
  ASSERT_TRUE(runs([&] { return initiator.observer.ups == 2; }));
  stuck();
  const TestCommand& waits = stuck();
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(manage(TaskFunction::abort_task, 0, &waits.task), FunctionOutcome::complete);
  ASSERT_TRUE(runs([&] { return waits.done; }));
  EXPECT_EQ(waits.task.outcome, TaskOutcome::not_sent);
  EXPECT_EQ(target->counters.aborts, 0U);
  EXPECT_EQ(initiator.session.commands_in_flight(), 1U);
}

TEST_F(SessionFunctionsTest, TaskThatHasEndedIsNotAborted) {
  target->clear_faults();
  const TestCommand& command = stuck();
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(manage(TaskFunction::abort_task, 0, &command.task), FunctionOutcome::no_such_task);
  EXPECT_EQ(target->counters.aborts, 0U);
}

TEST_F(SessionFunctionsTest, OnlyTheUnsentCommandsOfTheCallerAreTakenBack) {
  target->options().window = 1;
  initiator.session.drop({ErrorCode::unavailable, "to log in with another window"});
  ASSERT_TRUE(runs([&] { return initiator.observer.ups == 2; }));
  const TestCommand& sent = stuck(0);
  const TestCommand& meant = stuck(0);
  const TestCommand& of_somebody_else = stuck(0);
  reactor.run_for(milliseconds(10));
  initiator.session.withdraw_unsent(
      [](const ScsiTask& task, const void* caller) noexcept {
        const auto& ours = *static_cast<const std::array<const ScsiTask*, 2>*>(caller);
        return std::find(ours.begin(), ours.end(), &task) != ours.end();
      },
      std::array{&sent.task, &meant.task}.data());
  EXPECT_FALSE(meant.done) << "completed from inside the call";
  reactor.run_for(milliseconds(1));
  EXPECT_TRUE(meant.done);
  EXPECT_EQ(meant.task.outcome, TaskOutcome::not_sent);
  EXPECT_FALSE(sent.done || of_somebody_else.done);
  EXPECT_EQ(initiator.session.commands_in_flight(), 2U);
}

// A closed window holds commands back, but not what is to end them.
TEST_F(SessionFunctionsTest, FunctionsPassAClosedWindow) {
  target->options().window = 2;
  initiator.session.drop({ErrorCode::unavailable, "to log in with another window"});
  ASSERT_TRUE(runs([&] { return initiator.observer.ups == 2; }));
  for (int i = 0; i < 5; ++i) {
    stuck();
  }
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(manage(TaskFunction::abort_task, 0, &commands[0].task), FunctionOutcome::complete);
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(initiator.session.statistics().commands, 3U) << "there is room for one more";
}

TEST_F(SessionFunctionsTest, MoreFunctionsThanFitAtOnceWait) {
  std::vector<TestFunction> functions(100);
  for (TestFunction& function : functions) {
    function.submit(initiator.session, TaskFunction::logical_unit_reset);
  }
  for (TestFunction& function : functions) {
    ASSERT_TRUE(runs([&] { return function.done; }));
    EXPECT_EQ(function.outcome(), FunctionOutcome::complete);
  }
}

TEST_F(SessionFunctionsTest, NotSentWhileNotLoggedIn) {
  initiator.stop();
  EXPECT_EQ(manage(TaskFunction::logical_unit_reset), FunctionOutcome::not_sent);
}

TEST_F(SessionFunctionsTest, LostConnectionEndsTheFunctionAfterTheTasks) {
  target->fault_functions(TaskFunction::logical_unit_reset, SimFunctionFault{.answer = false});
  const TestCommand& command = stuck();
  std::vector<TestFunction> functions(20);
  for (TestFunction& function : functions) {
    function.submit(initiator.session, TaskFunction::logical_unit_reset);
  }
  reactor.run_for(milliseconds(10));
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs([&] { return functions[0].done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(functions[0].outcome(), FunctionOutcome::connection_lost);
  EXPECT_EQ(functions[19].outcome(), FunctionOutcome::not_sent) << "it waited for room";
}

TEST_F(SessionFunctionsTest, FunctionThatIsNotAnsweredDropsTheConnectionInItsOwnTime) {
  const std::vector<std::pair<TaskFunction, int>> limits = {
      {TaskFunction::abort_task_set, 700},
      {TaskFunction::logical_unit_reset, 1100},
      {TaskFunction::target_warm_reset, 1500},
      {TaskFunction::target_cold_reset, 1500}};
  SessionOptions options = test_session_options(2);
  options.abort_timeout = milliseconds(700);
  options.lu_reset_timeout = milliseconds(1100);
  options.tgt_reset_timeout = milliseconds(1500);
  TestSession other(reactor, options);
  ASSERT_TRUE(other.start());
  for (const auto& [which, limit] : limits) {
    target->fault_functions(which, SimFunctionFault{.answer = false});
    ASSERT_TRUE(other.up());
    TestFunction function;
    const TimePoint start = reactor.now();
    function.submit(other.session, which);
    ASSERT_TRUE(runs([&] { return function.done; }));
    EXPECT_EQ(function.outcome(), FunctionOutcome::connection_lost);
    EXPECT_GE(reactor.now() - start, milliseconds(limit));
    EXPECT_LE(reactor.now() - start, milliseconds(limit + 150));
    EXPECT_THAT(other.observer.reason, ::testing::HasSubstr(to_string(which)));
  }
}

class FunctionAnswersTest : public ProtocolTest {
 protected:
  // An ABORT TASK of a read at the target.
  ReceivedPdu abort_read() {
    tag = read();
    function.submit(initiator.session, TaskFunction::abort_task, 0, &command.task);
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::task_management_request, pdu));
    return pdu;
  }
  void answer(const ReceivedPdu& request, std::uint8_t code) {
    target.send(TaskManagementResponsePdu{.response = code,
                                          .initiator_task_tag = request.header.initiator_task_tag,
                                          .numbers = target.status_numbers()});
  }
  void reject(const ReceivedPdu& request, std::uint8_t reason) {
    RejectPdu pdu;
    pdu.reason = reason;
    pdu.data_bytes = kBhsBytes;
    pdu.numbers = target.status_numbers();
    target.send(pdu, std::span{request.bytes}.first(kBhsBytes));
  }
  std::uint32_t tag = 0;
  TestFunction function;
};
INSTANTIATE_TEST_SUITE_P(EverySplit, FunctionAnswersTest, every_split());

TEST_P(FunctionAnswersTest, RequestHasTheRightFields) {
  const ReceivedPdu pdu = abort_read();
  const TaskManagementRequestPdu request = decode_task_management_request(pdu.bhs());
  EXPECT_TRUE(pdu.header.immediate);
  EXPECT_EQ(request.function, TaskFunction::abort_task);
  EXPECT_EQ(request.referenced_task_tag, tag);
  EXPECT_EQ(request.cmd_sn, target.exp_cmd_sn);
  EXPECT_EQ(request.ref_cmd_sn, target.exp_cmd_sn - 1);
  EXPECT_EQ(request.exp_stat_sn, target.stat_sn);
  answer(pdu, 0);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
}

TEST_P(FunctionAnswersTest, EveryResponseHasItsOutcome) {
  for (const auto& [code, outcome] : {std::pair{1, FunctionOutcome::no_such_task},
                                      {2, FunctionOutcome::no_such_lun},
                                      {3, FunctionOutcome::refused},
                                      {4, FunctionOutcome::refused},
                                      {5, FunctionOutcome::unsupported},
                                      {6, FunctionOutcome::refused},
                                      {255, FunctionOutcome::refused},
                                      {77, FunctionOutcome::refused}}) {
    function.done = false;
    answer(abort_read(), static_cast<std::uint8_t>(code));
    ASSERT_TRUE(runs([&] { return function.done; }));
    EXPECT_EQ(function.outcome(), outcome) << code;
    EXPECT_FALSE(command.done) << "the target has not said that it is gone";
    target.send(response(tag, 8));
    ASSERT_TRUE(runs([&] { return command.done; }));
    command.done = false;
  }
}

TEST_P(FunctionAnswersTest, AnswerOfTheTaskMayComeFirst) {
  const ReceivedPdu pdu = abort_read();
  target.send(response(tag, 8));
  answer(pdu, 1);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::busy);
  EXPECT_EQ(command.task.outcome, TaskOutcome::completed);
  EXPECT_EQ(function.outcome(), FunctionOutcome::no_such_task);
}

TEST_P(FunctionAnswersTest, AnswerOfTheTaskMayComeBeforeACompleteToo) {
  const ReceivedPdu pdu = abort_read();
  target.send(response(tag, 0x40));
  answer(pdu, 0);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::task_aborted);
  EXPECT_EQ(function.outcome(), FunctionOutcome::complete);
}

TEST_P(FunctionAnswersTest, DropsAnswerOfATaskThatWasAborted) {
  answer(abort_read(), 0);
  ASSERT_TRUE(runs([&] { return command.done; }));
  command.done = false;
  command.task.on_complete = nullptr;
  target.send(response(tag, 8));
  expect_dropped("does not exist");
}

TEST_P(FunctionAnswersTest, DropsDataOfATaskThatWasAborted) {
  answer(abort_read(), 0);
  ASSERT_TRUE(runs([&] { return command.done; }));
  command.done = false;
  command.task.on_complete = nullptr;
  send_data(data_in(tag, 0, 4096));
  expect_dropped("does not exist");
}

TEST_P(FunctionAnswersTest, DropsSecondAnswerOfAFunction) {
  const ReceivedPdu pdu = abort_read();
  answer(pdu, 0);
  answer(pdu, 0);
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  EXPECT_THAT(initiator.observer.reason, ::testing::HasSubstr("answers no request"));
}

TEST_P(FunctionAnswersTest, FunctionForWhichTheTargetHasNoRoomIsSentAgain) {
  const ReceivedPdu first = abort_read();
  reject(first, 0x06);
  ReceivedPdu again;
  ASSERT_TRUE(target.next(Opcode::task_management_request, again));
  EXPECT_EQ(again.header.initiator_task_tag, first.header.initiator_task_tag);
  answer(again, 0);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(function.outcome(), FunctionOutcome::complete);
}

TEST_P(FunctionAnswersTest, FunctionThatTheTargetDoesNotKnowIsUnsupported) {
  reject(abort_read(), 0x05);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(function.outcome(), FunctionOutcome::unsupported);
  EXPECT_FALSE(command.done);
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

// Data that an R2T asked for goes on while its task is being aborted (RFC 7143 4.2.3.3 b), and none
// follows once it is.
TEST_P(FunctionAnswersTest, R2tIsServedUntilTheTaskHasEnded) {
  const std::uint32_t write_tag = write();
  function.submit(initiator.session, TaskFunction::abort_task, 0, &command.task);
  ReceivedPdu request;
  ASSERT_TRUE(target.next(Opcode::task_management_request, request));
  target.send(r2t(write_tag, 65536, 8192));
  ReceivedPdu data;
  ASSERT_TRUE(target.next(Opcode::data_out, data));
  EXPECT_TRUE(decode_data_out(data.bhs()).final);
  answer(request, 0);
  ASSERT_TRUE(runs([&] { return function.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
}

}  // namespace
}  // namespace iscsi_blkback
