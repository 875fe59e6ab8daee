#include "initiator/session/task_manager.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/scsi/lun_address.h"

namespace iscsi_blkback {

const char* to_string(FunctionOutcome outcome) {
  switch (outcome) {
    case FunctionOutcome::complete:
      return "complete";
    case FunctionOutcome::no_such_task:
      return "no such task";
    case FunctionOutcome::no_such_lun:
      return "no such LUN";
    case FunctionOutcome::unsupported:
      return "unsupported";
    case FunctionOutcome::refused:
      return "refused";
    case FunctionOutcome::not_sent:
      return "not sent";
    case FunctionOutcome::connection_lost:
      return "connection lost";
  }
  return "unknown";
}

const char* to_string(TaskFunction function) {
  switch (function) {
    case TaskFunction::abort_task:
      return "ABORT TASK";
    case TaskFunction::abort_task_set:
      return "ABORT TASK SET";
    case TaskFunction::logical_unit_reset:
      return "LOGICAL UNIT RESET";
    case TaskFunction::target_warm_reset:
      return "TARGET WARM RESET";
    case TaskFunction::target_cold_reset:
      return "TARGET COLD RESET";
  }
  return "unknown";
}

namespace {

void complete_function(TaskManagement& function, FunctionOutcome outcome) {
  function.outcome = outcome;
  function.on_complete(function);
}

}  // namespace

TaskManager::TaskManager(Owner& owner, Reactor& reactor, const SessionOptions& options,
                         TaskTable& table, const SessionNumbers& numbers,
                         const CommandWatchdog& watchdog, Deferred& flush, Deferred& events)
    : owner_(owner),
      reactor_(reactor),
      options_(options),
      table_(table),
      numbers_(numbers),
      watchdog_(watchdog),
      flush_(flush),
      events_(events),
      timer_(
          reactor, [](void* self) noexcept { static_cast<TaskManager*>(self)->on_timer(); }, this) {
}

void TaskManager::start(TaskManagement& function) {
  waiting_.push_back(function);
  start_waiting();
}

void TaskManager::finish_unsent(TaskManagement& function, FunctionOutcome outcome) {
  function.outcome = outcome;
  unsent_.push_back(function);
  events_.schedule();
}

void TaskManager::complete_unsent() {
  IntrusiveList<TaskManagement> unsent;
  unsent.take_all(unsent_);
  while (TaskManagement* function = unsent.pop_front()) {
    function->on_complete(*function);
  }
}

TaskManager::Function* TaskManager::free_slot() {
  const auto found = std::find_if(functions_.begin(), functions_.end(),
                                  [](const auto& slot) { return slot.state == State::free; });
  return found == functions_.end() ? nullptr : &*found;
}

void TaskManager::start_waiting() {
  while (!waiting_.empty()) {
    Function* slot = free_slot();
    if (slot == nullptr) {
      return;
    }
    TaskManagement& request = *waiting_.pop_front();
    slot->referenced_task_tag = kReservedTag;
    slot->ref_cmd_sn = 0;
    if (request.function == TaskFunction::abort_task) {
      const TaskSlot* task = table_.find_if(
          [&request](const TaskSlot& at_target) { return at_target.task == request.task; });
      if (task == nullptr) {
        finish_unsent(request, FunctionOutcome::no_such_task);
        continue;
      }
      slot->referenced_task_tag = table_.tag_of(*task);
      slot->ref_cmd_sn = task->cmd_sn;
    }
    slot->request = &request;
    begin(*slot, request.function, request.lun);
    if (request.no_deadline) {
      slot->deadline = TimePoint::max();
    }
  }
}

void TaskManager::abandon(TaskManagement& function) {
  const auto slot = std::find_if(functions_.begin(), functions_.end(),
                                 [&](const auto& used) { return used.request == &function; });
  if (slot == functions_.end()) {
    static_cast<ListHook<TaskManagement>&>(function).unlink();  // it waits for a slot
  } else if (slot->state == State::sent) {
    slot->request = nullptr;
    slot->state = State::abandoned;
  } else {
    release(*slot);
  }
}

bool TaskManager::one_ends() const {
  return std::any_of(functions_.begin(), functions_.end(),
                     [](const Function& function) { return function.ends(); });
}

void TaskManager::begin(Function& slot, TaskFunction function, std::uint64_t lun) {
  ++used_;
  ++slot.generation;
  slot.state = State::queued;
  slot.function = function;
  slot.lun = lun;
  slot.deadline = reactor_.now() + timeout_of(function);
  flush_.schedule();
  if (!timer_.armed()) {
    timer_.start_after(period());
  }
}

Duration TaskManager::timeout_of(TaskFunction function) const {
  switch (function) {
    case TaskFunction::abort_task:
    case TaskFunction::abort_task_set:
      return options_.abort_timeout;
    case TaskFunction::logical_unit_reset:
      return options_.lu_reset_timeout;
    case TaskFunction::target_warm_reset:
    case TaskFunction::target_cold_reset:
      break;
  }
  return options_.tgt_reset_timeout;
}

std::uint32_t TaskManager::tag_of(const Function& slot) const {
  return (kFunctionTags + static_cast<std::uint32_t>(&slot - functions_.data())) |
         std::uint32_t{slot.generation} << 16;
}

const TaskManager::Function* TaskManager::find(std::uint32_t tag) const {
  const std::uint32_t index = (tag & 0xffff) - kFunctionTags;
  if (index >= functions_.size() || tag_of(functions_[index]) != tag ||
      functions_[index].state == State::free) {
    return nullptr;
  }
  return &functions_[index];
}

// Immediate, so that a closed command window does not hold it back: it carries the CmdSN of the
// next command and does not use it up.
void TaskManager::stage_queued(TransmitBatch& batch) {
  for (Function& slot : functions_) {
    if (slot.state != State::queued) {
      continue;
    }
    slot.state = State::sent;
    slot.cmd_sn = numbers_.cmd_sn;
    encode(TaskManagementRequestPdu{.function = slot.function,
                                    .lun = slot.lun,
                                    .initiator_task_tag = tag_of(slot),
                                    .referenced_task_tag = slot.referenced_task_tag,
                                    .cmd_sn = numbers_.cmd_sn,
                                    .exp_stat_sn = numbers_.exp_stat_sn(),
                                    .ref_cmd_sn = slot.ref_cmd_sn},
           batch.add_header());
  }
}

bool TaskManager::is_sent(std::uint32_t tag) const {
  const Function* slot = find(tag);
  return slot != nullptr && slot->state == State::sent;
}

bool TaskManager::expects_answer(std::uint32_t tag) const {
  const Function* slot = find(tag);
  return slot != nullptr && (slot->state == State::sent || slot->state == State::abandoned);
}

void TaskManager::defer(std::uint32_t tag) {
  find(tag)->state = State::deferred;
}

Result<void> TaskManager::answered(std::uint32_t tag, FunctionOutcome outcome) {
  Function& slot = *find(tag);
  if (outcome == FunctionOutcome::complete) {
    end_tasks(slot);
  }
  if (slot.request != nullptr) {
    TaskManagement& request = *slot.request;
    release(slot);
    complete_function(request, outcome);
    return {};
  }
  const std::uint64_t lun = slot.lun;
  const bool overtaken =
      slot.state == State::abandoned || (slot.function == TaskFunction::abort_task &&
                                         table_.find(slot.referenced_task_tag) == nullptr);
  if (overtaken || outcome == FunctionOutcome::complete) {
    release(slot);
    return {};
  }
  if (outcome == FunctionOutcome::no_such_task) {
    // On one connection the task's own answer cannot be behind this one, but some targets answer
    // from several threads: it has until the deadline.
    slot.state = State::answered;
    return {};
  }
  const bool was_reset = slot.function == TaskFunction::logical_unit_reset;
  release(slot);
  if (was_reset) {
    return fail(ErrorCode::timed_out, fmt::format("answers, but not a command, nor can its LUN be "
                                                  "reset ({})",
                                                  to_string(outcome)));
  }
  return escalate(lun);
}

void TaskManager::release(Function& slot) {
  slot.state = State::free;
  slot.request = nullptr;
  --used_;
  start_waiting();
}

// The target has confirmed the end of these tasks: their data is no longer wanted, and nothing of
// them will be executed any further (SAM-5 7.2 to 7.7).
void TaskManager::end_tasks(const Function& slot) {
  const bool whole_session = slot.function == TaskFunction::target_warm_reset ||
                             slot.function == TaskFunction::target_cold_reset;
  table_.for_each([&](TaskSlot& task) {
    if (!serial_before(task.cmd_sn, slot.cmd_sn)) {
      return;
    }
    const bool meant = slot.function == TaskFunction::abort_task
                           ? table_.tag_of(task) == slot.referenced_task_tag
                           : whole_session || task.task->lun == slot.lun;
    if (meant) {
      task.task->outcome = TaskOutcome::aborted;
      if (slot.function == TaskFunction::abort_task) {
        ScsiTask::count_up(task.task->stuck);
      }
      task.task->transferred_bytes = 0;
      owner_.end_task(task);
    }
  });
}

Result<void> TaskManager::abort_stuck(const TaskSlot& slot) {
  const std::uint32_t tag = table_.tag_of(slot);
  const std::uint64_t lun = slot.task->lun;
  for (const Function& function : functions_) {
    const bool aborting =
        function.function == TaskFunction::abort_task && function.referenced_task_tag == tag;
    const bool resetting =
        function.function == TaskFunction::logical_unit_reset && function.lun == lun;
    if (function.ends() && (aborting || resetting)) {
      return {};
    }
  }
  Function* free = free_slot();
  if (free == nullptr) {
    // Its turn comes when one of those under way is answered; that each of them is, or is given up,
    // is the deadlines' affair. Abandoned ones have none.
    return one_ends() ? Result<void>{} : escalate(lun);
  }
  ++stuck_commands_;
  owner_.warn(
      fmt::format("a command for LUN {} (operation 0x{:02x}) is not answered; it is aborted",
                  lun_text(lun), slot.task->cdb[0]));
  free->request = nullptr;
  free->referenced_task_tag = tag;
  free->ref_cmd_sn = slot.cmd_sn;
  begin(*free, TaskFunction::abort_task, lun);
  return {};
}

// ABORT TASK has not helped.
Result<void> TaskManager::escalate(std::uint64_t lun) {
  const bool resetting =
      std::any_of(functions_.begin(), functions_.end(), [lun](const Function& function) {
        return function.ends() && function.request == nullptr &&
               function.function == TaskFunction::logical_unit_reset && function.lun == lun;
      });
  if (resetting) {
    return {};
  }
  Function* free = owner_.may_reset(lun) ? free_slot() : nullptr;
  if (free == nullptr) {
    watchdog_.count_stuck(table_, lun);
    return fail(
        ErrorCode::timed_out,
        fmt::format("answers, but not a command for LUN {}, nor does it abort it", lun_text(lun)));
  }
  owner_.warn(
      fmt::format("a command for LUN {} cannot be aborted; the LUN is reset", lun_text(lun)));
  free->request = nullptr;
  free->referenced_task_tag = kReservedTag;
  free->ref_cmd_sn = 0;
  begin(*free, TaskFunction::logical_unit_reset, lun);
  return {};
}

// Between two looks: deadlines are found out soon enough, and that a task has been answered.
Duration TaskManager::period() const {
  const std::chrono::milliseconds shortest =
      std::min({options_.abort_timeout, options_.lu_reset_timeout, options_.tgt_reset_timeout});
  return std::clamp<Duration>(Duration{shortest} / 8, std::chrono::milliseconds{1},
                              std::chrono::milliseconds{125});
}

void TaskManager::on_timer() {
  if (const Result<void> looked = look_at_deadlines(reactor_.now()); !looked) {
    owner_.give_up(looked.error());
  } else if (used_ != 0) {
    timer_.start_after(period());
  }
}

Result<void> TaskManager::look_at_deadlines(TimePoint now) {
  for (Function& slot : functions_) {
    if (slot.state == State::free || slot.state == State::abandoned) {
      continue;
    }
    const bool own_abort = slot.request == nullptr && slot.function == TaskFunction::abort_task;
    if (own_abort && table_.find(slot.referenced_task_tag) == nullptr) {
      if (slot.state == State::sent) {
        slot.state = State::abandoned;  // its answer may still come
      } else {
        release(slot);
      }
      continue;
    }
    if (slot.state == State::deferred) {
      slot.state = State::queued;
      flush_.schedule();
    }
    if (now < slot.deadline) {
      continue;
    }
    if (!own_abort) {
      watchdog_.count_stuck(table_, slot.lun);
      return fail(ErrorCode::timed_out,
                  fmt::format("does not answer a {}", to_string(slot.function)));
    }
    if (slot.state == State::answered) {
      // It knows no such task. A reset has nothing to end there, but everybody else's commands, and
      // those at other paths without an answer, so that it would lead to the next reset.
      watchdog_.count_stuck(table_, slot.lun);
      return fail(ErrorCode::timed_out,
                  fmt::format("neither answers a command for LUN {} nor knows it any more",
                              lun_text(slot.lun)));
    }
    const std::uint64_t lun = slot.lun;
    if (slot.state == State::sent) {
      slot.state = State::abandoned;
    } else {
      release(slot);  // another function may have it now
    }
    if (Result<void> escalated = escalate(lun); !escalated) {
      return escalated;
    }
  }
  return {};
}

void TaskManager::connection_lost() {
  timer_.stop();
  for (Function& slot : functions_) {
    TaskManagement* request = std::exchange(slot.request, nullptr);
    const bool unsent = slot.state == State::queued;
    slot.state = State::free;
    if (request != nullptr) {
      complete_function(*request,
                        unsent ? FunctionOutcome::not_sent : FunctionOutcome::connection_lost);
    }
  }
  used_ = 0;
  while (TaskManagement* waiting = waiting_.pop_front()) {
    complete_function(*waiting, FunctionOutcome::not_sent);
  }
}

}  // namespace iscsi_blkback
