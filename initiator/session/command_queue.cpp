#include "initiator/session/command_queue.h"

namespace iscsi_blkback {
namespace {

// With the outcome of a command that has not come to its end.
void ends_with(ScsiTask& task, TaskOutcome outcome) {
  task.outcome = outcome;
  task.transferred_bytes = 0;
}

}  // namespace

void CommandQueue::refuse(ScsiTask& task) {
  refused_.push_back(task);
  events_.schedule();
}

void CommandQueue::withdraw_unsent(bool (*is_callers)(const ScsiTask& task,
                                                      const void* caller) noexcept,
                                   const void* caller) {
  waiting_.for_each([&](ScsiTask& task) {
    if (is_callers(task, caller)) {
      task.unlink();
      leave(task);
      refuse(task);
    }
  });
}

bool CommandQueue::withdraw(const ScsiTask& task) {
  const std::uint32_t before = in_flight_;
  withdraw_unsent(
      [](const ScsiTask& waiting, const void* wanted) noexcept { return &waiting == wanted; },
      &task);
  return in_flight_ != before;
}

// Inline, as each command comes by.
inline void CommandQueue::complete(ScsiTask& task) {
  leave(task);
  if (!busy() && logout_.under_way()) {
    flush_.schedule();  // the Logout may go now
  }
  task.on_complete(task);
}

void CommandQueue::finish(TaskSlot& slot, bool referred_to) {
  ScsiTask& task = table_.remove(slot);
  if (task.outcome == TaskOutcome::completed) {
    task.silences = task.stuck = 0;
  }
  if (!waiting_.empty()) {
    flush_.schedule();
  }
  if (referred_to) {
    referred_to_.push_back(task);
  } else {
    complete(task);
  }
}

void CommandQueue::complete_referred_to() {
  while (ScsiTask* task = referred_to_.pop_front()) {
    complete(*task);
  }
}

void CommandQueue::complete_refused() {
  // Only those that are here now: a submitter that submits again from its completion gets its
  // answer in a later call, after everybody else had a turn.
  IntrusiveList<ScsiTask> refused;
  refused.take_all(refused_);
  while (ScsiTask* task = refused.pop_front()) {
    ends_with(*task, TaskOutcome::not_sent);
    task->on_complete(*task);
  }
}

void CommandQueue::connection_lost() {
  complete_referred_to();
  table_.for_each([this](TaskSlot& slot) {
    ScsiTask& task = table_.remove(slot);
    ends_with(task, TaskOutcome::connection_lost);
    complete(task);
  });
  while (ScsiTask* task = waiting_.pop_front()) {
    ends_with(*task, TaskOutcome::not_sent);
    complete(*task);
  }
}

bool CommandQueue::one_given_up_before() const {
  return table_.find_if([](const TaskSlot& slot) { return slot.task->silences != 0; }) != nullptr;
}

void CommandQueue::count_stall() {
  table_.for_each([](const TaskSlot& slot) { ScsiTask::count_up(slot.task->silences); });
}

}  // namespace iscsi_blkback
