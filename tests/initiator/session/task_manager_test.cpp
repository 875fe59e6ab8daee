// TaskManager: which functions go to the target, what their answers end, and the ladder for
// commands that are stuck.
#include "initiator/session/task_manager.h"

#include <gmock/gmock.h>

#include <array>
#include <deque>
#include <vector>

#include "initiator/scsi/lun_address.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TaskManagerTest : public testing::Test, public TaskManager::Owner {
 protected:
  TaskManagerTest() {
    options.abort_timeout = 10s;
    options.lu_reset_timeout = 20s;
    numbers.cmd_sn = 100;
  }
  ~TaskManagerTest() override {
    functions.connection_lost();
    functions.complete_unsent();
    table.for_each([this](TaskSlot& slot) { table.remove(slot); });
    flush.cancel();
    events.cancel();
  }

  // TaskManager::Owner
  void end_task(TaskSlot& slot) noexcept override {
    ended.push_back(&table.remove(slot));
    order.emplace_back("task");
  }
  bool may_reset(std::uint64_t) noexcept override { return reset_allowed; }
  void warn(const std::string& text) noexcept override { warnings.push_back(text); }
  void give_up(const Error& why) noexcept override {
    given_up = why.message;
    given_up_after = reactor.now() - started;
  }

  std::uint32_t at_target(std::size_t task, std::uint64_t lun = 0) {
    tasks.at(task).lun = lun;
    const std::uint32_t tag = table.insert(tasks.at(task));
    table.find(tag)->cmd_sn = numbers.cmd_sn++;
    return tag;
  }
  void start(TaskManagement& function, TaskFunction which, const ScsiTask* task = nullptr) {
    function.function = which;
    function.task = task;
    function.owner = this;
    function.on_complete = [](TaskManagement& completed) noexcept {
      auto& self = *static_cast<TaskManagerTest*>(completed.owner);
      self.outcomes.push_back(completed.outcome);
      self.order.emplace_back("function");
    };
    functions.start(function);
  }
  // Sends what is queued.
  std::vector<TaskManagementRequestPdu> sent() {
    TransmitBatch batch;
    functions.stage(batch);
    batch.seal();
    std::vector<TaskManagementRequestPdu> pdus;
    for (const iovec& part : batch.parts()) {
      for (std::size_t at = 0; at < part.iov_len; at += kBhsBytes) {
        pdus.push_back(decode_task_management_request(
            BhsBytes{static_cast<const std::byte*>(part.iov_base) + at, kBhsBytes}));
      }
    }
    return pdus;
  }
  std::uint32_t sent_tag() {
    const auto pdus = sent();
    EXPECT_EQ(pdus.size(), 1U);
    return pdus.empty() ? 0 : pdus.front().initiator_task_tag;
  }

  SimReactor reactor{1};
  Deferred flush{reactor, [](void*) noexcept {}, nullptr};
  Deferred events{reactor, [](void*) noexcept {}, nullptr};
  SessionOptions options;
  SessionNumbers numbers;
  KeepAlive keep_alive{reactor, options, [](void*) noexcept {}, nullptr};
  CommandWatchdog watchdog{reactor, options, keep_alive, [](void*) noexcept {}, nullptr};
  TaskTable table{8};
  std::array<ScsiTask, 8> tasks;
  std::deque<TaskManagement> made;
  TaskManager functions{*this, reactor, options, table, numbers, watchdog, flush, events};
  bool reset_allowed = false;
  std::vector<ScsiTask*> ended;
  std::vector<FunctionOutcome> outcomes;
  std::vector<std::string> order;
  std::vector<std::string> warnings;
  const TimePoint started = reactor.now();
  std::string given_up;
  Duration given_up_after{};
};

TEST_F(TaskManagerTest, AnAbortNamesItsTaskAndUsesNoCmdSn) {
  const std::uint32_t tag = at_target(0);
  at_target(1);
  TaskManagement& abort = made.emplace_back();
  start(abort, TaskFunction::abort_task, &tasks[0]);
  EXPECT_TRUE(flush.scheduled());
  const auto pdus = sent();
  ASSERT_EQ(pdus.size(), 1U);
  EXPECT_EQ(pdus[0].referenced_task_tag, tag);
  EXPECT_EQ(pdus[0].ref_cmd_sn, 100U);
  EXPECT_EQ(pdus[0].cmd_sn, 102U) << "the next command's";
  EXPECT_THAT(sent(), IsEmpty()) << "once";
  ASSERT_TRUE(functions.answered(pdus[0].initiator_task_tag, FunctionOutcome::complete));
  EXPECT_THAT(ended, ElementsAre(&tasks[0]));
  EXPECT_EQ(tasks[0].outcome, TaskOutcome::aborted);
  EXPECT_THAT(order, ElementsAre("task", "function"));
}

TEST_F(TaskManagerTest, AnAbortOfATaskThatIsNotThereIsNotSent) {
  TaskManagement& abort = made.emplace_back();
  start(abort, TaskFunction::abort_task, &tasks[0]);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_THAT(outcomes, IsEmpty()) << "never from inside";
  functions.complete_unsent();
  EXPECT_THAT(outcomes, ElementsAre(FunctionOutcome::no_such_task));
}

TEST_F(TaskManagerTest, AResetEndsTheLunsTasksThatWereSentBeforeIt) {
  at_target(0, 1);
  at_target(1, 2);
  TaskManagement& reset = made.emplace_back();
  reset.lun = 1;
  start(reset, TaskFunction::logical_unit_reset);
  const std::uint32_t tag = sent_tag();
  at_target(2, 1);
  ASSERT_TRUE(functions.answered(tag, FunctionOutcome::complete));
  EXPECT_THAT(ended, ElementsAre(&tasks[0]));
}

TEST_F(TaskManagerTest, ATargetResetEndsAll) {
  at_target(0, 1);
  at_target(1, 2);
  TaskManagement& reset = made.emplace_back();
  start(reset, TaskFunction::target_cold_reset);
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::complete));
  EXPECT_THAT(ended, ElementsAre(&tasks[0], &tasks[1]));
}

TEST_F(TaskManagerTest, ARefusedFunctionEndsNothing) {
  at_target(0, 1);
  TaskManagement& reset = made.emplace_back();
  reset.lun = 1;
  start(reset, TaskFunction::logical_unit_reset);
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::refused));
  EXPECT_THAT(ended, IsEmpty());
  EXPECT_THAT(outcomes, ElementsAre(FunctionOutcome::refused));
}

TEST_F(TaskManagerTest, ThoseThatFindNoSlotGoWhenOneIsFree) {
  for (std::uint32_t i = 0; i <= kMaxFunctions; ++i) {
    start(made.emplace_back(), TaskFunction::logical_unit_reset);
  }
  const auto pdus = sent();
  ASSERT_EQ(pdus.size(), kMaxFunctions);
  EXPECT_EQ(functions.used(), kMaxFunctions);
  ASSERT_TRUE(functions.answered(pdus[3].initiator_task_tag, FunctionOutcome::complete));
  const std::uint32_t next = sent_tag();
  EXPECT_EQ(next & 0xffff, pdus[3].initiator_task_tag & 0xffff);
  EXPECT_FALSE(functions.expects_answer(pdus[3].initiator_task_tag)) << "an earlier one's tag";
  EXPECT_TRUE(functions.is_sent(next));
}

TEST_F(TaskManagerTest, AnAbandonedOneDoesNotCompleteAndItsAnswerFreesItsSlot) {
  TaskManagement& reset = made.emplace_back();
  start(reset, TaskFunction::logical_unit_reset);
  const std::uint32_t tag = sent_tag();
  functions.abandon(reset);
  EXPECT_FALSE(functions.is_sent(tag));
  EXPECT_TRUE(functions.expects_answer(tag));
  EXPECT_EQ(functions.used(), 1U);
  ASSERT_TRUE(functions.answered(tag, FunctionOutcome::complete));
  EXPECT_EQ(functions.used(), 0U);
  EXPECT_THAT(outcomes, IsEmpty());
}

TEST_F(TaskManagerTest, OneThatWasAbandonedBeforeItWasSentIsNotSent) {
  TaskManagement& reset = made.emplace_back();
  start(reset, TaskFunction::logical_unit_reset);
  functions.abandon(reset);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(functions.used(), 0U);
}

TEST_F(TaskManagerTest, AFunctionThatIsNotAnsweredInItsTimeEndsTheConnection) {
  TaskManagement& reset = made.emplace_back();
  start(reset, TaskFunction::logical_unit_reset);
  sent_tag();
  reactor.run_for(30s);
  EXPECT_EQ(given_up, "does not answer a LOGICAL UNIT RESET");
  EXPECT_EQ(given_up_after, 20s);
}

TEST_F(TaskManagerTest, OneWithoutADeadlineIsWaitedFor) {
  TaskManagement& reset = made.emplace_back();
  reset.no_deadline = true;
  start(reset, TaskFunction::logical_unit_reset);
  sent_tag();
  EXPECT_FALSE(functions.one_ends());
  reactor.run_for(1h);
  EXPECT_EQ(given_up, "");
}

TEST_F(TaskManagerTest, OneThatTheTargetHadNoRoomForIsSentAgain) {
  TaskManagement& reset = made.emplace_back();
  start(reset, TaskFunction::logical_unit_reset);
  const std::uint32_t tag = sent_tag();
  functions.defer(tag);
  EXPECT_FALSE(functions.expects_answer(tag));
  EXPECT_THAT(sent(), IsEmpty()) << "not at once";
  reactor.run_for(125ms);
  EXPECT_EQ(sent_tag(), tag);
}

TEST_F(TaskManagerTest, AfterTheConnectionAllCompleteByWhetherTheyWereSent) {
  TaskManagement& sent_one = made.emplace_back();
  TaskManagement& queued = made.emplace_back();
  start(sent_one, TaskFunction::logical_unit_reset);
  sent_tag();
  start(queued, TaskFunction::logical_unit_reset);
  functions.connection_lost();
  EXPECT_THAT(outcomes, ElementsAre(FunctionOutcome::connection_lost, FunctionOutcome::not_sent));
  EXPECT_EQ(functions.used(), 0U);
}

TEST_F(TaskManagerTest, AStuckCommandIsAbortedOnce) {
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  EXPECT_EQ(functions.stuck_commands(), 1U);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_THAT(warnings[0], HasSubstr("is aborted"));
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::complete));
  EXPECT_THAT(ended, ElementsAre(&tasks[0]));
  EXPECT_EQ(tasks[0].stuck, 1) << "it is given more time when it comes again";
}

TEST_F(TaskManagerTest, WhereTheAbortIsRefusedTheLunIsReset) {
  reset_allowed = true;
  const std::uint32_t tag = at_target(0, 1);
  at_target(1, 1);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::unsupported));
  const auto pdus = sent();
  ASSERT_EQ(pdus.size(), 1U);
  EXPECT_EQ(pdus[0].function, TaskFunction::logical_unit_reset);
  EXPECT_EQ(pdus[0].lun, 1U);
  ASSERT_TRUE(functions.answered(pdus[0].initiator_task_tag, FunctionOutcome::complete));
  EXPECT_THAT(ended, ElementsAre(&tasks[0], &tasks[1]));
}

TEST_F(TaskManagerTest, WhereTheLunMayNotBeResetTheConnectionEnds) {
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  const Result<void> refused = functions.answered(sent_tag(), FunctionOutcome::unsupported);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("nor does it abort it"));
}

TEST_F(TaskManagerTest, WhereTheResetIsRefusedTooTheConnectionEnds) {
  reset_allowed = true;
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::refused));
  const Result<void> refused = functions.answered(sent_tag(), FunctionOutcome::refused);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("nor can its LUN be reset (refused)"));
}

TEST_F(TaskManagerTest, AnAbortThatIsNotAnsweredLeadsToTheReset) {
  reset_allowed = true;
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  const std::uint32_t abort = sent_tag();
  reactor.run_for(10s);
  EXPECT_EQ(sent().at(0).function, TaskFunction::logical_unit_reset);
  EXPECT_TRUE(functions.expects_answer(abort)) << "it may still come";
}

TEST_F(TaskManagerTest, ATargetThatKnowsNoSuchTaskHasUntilTheDeadlineToAnswerIt) {
  reset_allowed = true;
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  ASSERT_TRUE(functions.answered(sent_tag(), FunctionOutcome::no_such_task));
  reactor.run_for(30s);
  EXPECT_THAT(given_up, HasSubstr("nor knows it any more"));
  EXPECT_EQ(given_up_after, 10s);
}

TEST_F(TaskManagerTest, TheLadderGoesOnWithItsLunThoughTheSlotHasAnotherFunction) {
  const std::uint32_t tag = at_target(0, encode_lun(1));
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));  // not sent: the connection takes nothing
  for (std::uint32_t i = 0; i < kMaxFunctions; ++i) {
    TaskManagement& reset = made.emplace_back();
    reset.lun = encode_lun(2);
    reset.no_deadline = true;
    start(reset, TaskFunction::logical_unit_reset);
  }
  reactor.run_for(10s);
  EXPECT_THAT(given_up, HasSubstr("a command for LUN 1,"));
}

TEST_F(TaskManagerTest, AStuckCommandThatIsAnsweredAfterAllEndsTheLadder) {
  const std::uint32_t tag = at_target(0);
  ASSERT_TRUE(functions.abort_stuck(*table.find(tag)));
  const std::uint32_t abort = sent_tag();
  table.remove(*table.find(tag));
  reactor.run_for(1min);
  EXPECT_EQ(given_up, "");
  EXPECT_TRUE(functions.expects_answer(abort));
  ASSERT_TRUE(functions.answered(abort, FunctionOutcome::no_such_task));
  EXPECT_EQ(functions.used(), 0U);
}

}  // namespace
}  // namespace iscsi_blkback
