// CommandQueue: every command completes once, with the outcome of how far it came.
#include "initiator/session/command_queue.h"

#include <gmock/gmock.h>

#include <array>
#include <vector>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CommandQueueTest : public testing::Test {
 protected:
  CommandQueueTest() {
    for (ScsiTask& task : tasks) {
      task.owner = this;
      task.transferred_bytes = 4096;  // of a former use
      task.on_complete = [](ScsiTask& completed) noexcept {
        auto& self = *static_cast<CommandQueueTest*>(completed.owner);
        self.done.push_back(static_cast<int>(&completed - self.tasks.data()));
      };
    }
  }
  ~CommandQueueTest() override {
    queue.connection_lost();
    queue.complete_refused();
    flush.cancel();
    events.cancel();
  }
  // Submits it, and sends it.
  TaskSlot& sent(int number) {
    queue.submit(tasks.at(static_cast<std::size_t>(number)));
    return *queue.find(queue.take_next());
  }
  [[nodiscard]] const ScsiTask& task(int number) const {
    return tasks.at(static_cast<std::size_t>(number));
  }

  SimReactor reactor{1};
  Deferred flush{reactor, [](void*) noexcept {}, nullptr};
  Deferred events{reactor, [](void*) noexcept {}, nullptr};
  LogoutSequence logout{reactor, [](void*) noexcept {}, nullptr};
  std::array<ScsiTask, 4> tasks;
  std::vector<int> done;
  CommandQueue queue{reactor, 2, logout, flush, events};
};

TEST_F(CommandQueueTest, TheFirstOneIsToldApart) {
  EXPECT_FALSE(queue.busy());
  EXPECT_TRUE(queue.submit(tasks[0]));
  EXPECT_FALSE(queue.submit(tasks[1]));
  EXPECT_EQ(queue.in_flight(), 2U);
  EXPECT_TRUE(flush.scheduled());
}

TEST_F(CommandQueueTest, TheReactorKnowsWhatIsAwaited) {
  tasks[1].data_length_bytes = 128 * 1024;
  for (ScsiTask& task : tasks) {
    queue.submit(task);
  }
  EXPECT_EQ(reactor.awaited_answers(), 3U + 17U);
  TaskSlot& first_sent = *queue.find(queue.take_next());
  queue.finish(first_sent, false);
  EXPECT_EQ(reactor.awaited_answers(), 2U + 17U);
  EXPECT_TRUE(queue.withdraw(tasks[1]));
  EXPECT_EQ(reactor.awaited_answers(), 2U);
  queue.connection_lost();
  EXPECT_EQ(reactor.awaited_answers(), 0U);
}

TEST_F(CommandQueueTest, CommandsAreTakenInOrderAsLongAsThereAreSlots) {
  for (ScsiTask& task : tasks) {
    queue.submit(task);
  }
  EXPECT_EQ(queue.find(queue.take_next())->task, &tasks[0]);
  EXPECT_EQ(queue.find(queue.take_next())->task, &tasks[1]);
  EXPECT_FALSE(queue.has_next());
  EXPECT_TRUE(queue.has_waiting());
}

TEST_F(CommandQueueTest, AnAnsweredOneCompletesAtOnceAndMakesRoom) {
  TaskSlot& slot = sent(0);
  queue.submit(tasks[1]);
  flush.cancel();
  queue.finish(slot, false);
  EXPECT_THAT(done, ElementsAre(0));
  EXPECT_EQ(queue.in_flight(), 1U);
  EXPECT_TRUE(flush.scheduled()) << "another one waits";
}

TEST_F(CommandQueueTest, OneWhoseDataIsBeingSentCompletesAfterThat) {
  queue.finish(sent(0), true);
  EXPECT_THAT(done, IsEmpty());
  EXPECT_TRUE(queue.busy());
  queue.complete_referred_to();
  EXPECT_THAT(done, ElementsAre(0));
}

TEST_F(CommandQueueTest, TheEndOfTheLastOneLetsTheLogoutGo) {
  TaskSlot& first = sent(0);
  TaskSlot& last = sent(1);
  flush.cancel();
  logout.begin(reactor.now(), LogoutSequence::of_stop(std::chrono::seconds(5)));
  queue.finish(first, false);
  EXPECT_FALSE(flush.scheduled());
  queue.finish(last, false);
  EXPECT_TRUE(flush.scheduled());
}

TEST_F(CommandQueueTest, WithoutALogoutItDoesNotAskForASend) {
  TaskSlot& slot = sent(0);
  flush.cancel();
  queue.finish(slot, false);
  EXPECT_FALSE(flush.scheduled());
}

TEST_F(CommandQueueTest, ThoseThatWaitAreTakenBackAndAreNotSent) {
  sent(0);
  queue.submit(tasks[1]);
  queue.submit(tasks[2]);
  queue.withdraw_unsent(
      [](const ScsiTask& task, const void* caller) noexcept { return &task != caller; }, &tasks[1]);
  EXPECT_THAT(done, IsEmpty()) << "never from inside";
  EXPECT_TRUE(events.scheduled());
  EXPECT_EQ(queue.in_flight(), 2U);
  queue.complete_refused();
  EXPECT_THAT(done, ElementsAre(2));
  EXPECT_EQ(task(2).outcome, TaskOutcome::not_sent);
  EXPECT_EQ(&queue.next(), &tasks[1]);
}

TEST_F(CommandQueueTest, OneThatIsAtTheTargetIsNotTakenBack) {
  sent(0);
  queue.submit(tasks[1]);
  EXPECT_FALSE(queue.withdraw(tasks[0]));
  EXPECT_TRUE(queue.withdraw(tasks[1]));
  EXPECT_FALSE(queue.has_waiting());
}

TEST_F(CommandQueueTest, ARefusedOneIsNotInFlight) {
  queue.refuse(tasks[0]);
  EXPECT_FALSE(queue.busy());
  EXPECT_TRUE(queue.has_refused());
  queue.complete_refused();
  EXPECT_EQ(task(0).outcome, TaskOutcome::not_sent);
  EXPECT_EQ(task(0).transferred_bytes, 0U);
}

TEST_F(CommandQueueTest, OneThatIsRefusedAgainFromItsCompletionWaitsForTheNextCall) {
  struct Again {
    CommandQueue& queue;
    int completions = 0;
  } again{queue};
  tasks[0].owner = &again;
  tasks[0].on_complete = [](ScsiTask& completed) noexcept {
    auto& self = *static_cast<Again*>(completed.owner);
    if (++self.completions < 3) {
      self.queue.refuse(completed);
    }
  };
  queue.refuse(tasks[0]);
  queue.complete_refused();
  EXPECT_EQ(again.completions, 1);
  queue.complete_refused();
  EXPECT_EQ(again.completions, 2);
  queue.complete_refused();
}

TEST_F(CommandQueueTest, WhatBecomesOfThemWithTheConnectionSaysHowFarTheyCame) {
  TaskSlot& answered = sent(0);
  answered.task->outcome = TaskOutcome::completed;
  queue.finish(answered, true);
  sent(1);
  queue.submit(tasks[2]);
  queue.connection_lost();
  EXPECT_THAT(done, ElementsAre(0, 1, 2));
  EXPECT_EQ(task(0).outcome, TaskOutcome::completed);
  EXPECT_EQ(task(1).outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(task(2).outcome, TaskOutcome::not_sent);
  EXPECT_FALSE(queue.busy());
}

TEST_F(CommandQueueTest, AnAnswerForgetsThatItWasGivenUpBefore) {
  TaskSlot& slot = sent(0);
  sent(1);
  EXPECT_FALSE(queue.one_given_up_before());
  queue.count_stall();
  tasks[0].stuck = 2;
  EXPECT_TRUE(queue.one_given_up_before());
  slot.task->outcome = TaskOutcome::completed;
  queue.finish(slot, false);
  EXPECT_EQ(task(0).silences, 0);
  EXPECT_EQ(task(0).stuck, 0);
  EXPECT_EQ(task(1).silences, 1);
}

}  // namespace
}  // namespace iscsi_blkback
