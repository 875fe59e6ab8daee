#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/session/session_impl.h"

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

void Session::Impl::manage(TaskManagement& function) {
  if (state_ != SessionState::logged_in) {
    function.outcome = FunctionOutcome::not_sent;
    functions_refused_.push_back(function);
    events_.schedule();
    return;
  }
  if (function.function == TaskFunction::abort_task) {
    ISCSI_BLKBACK_ASSERT(function.task != nullptr);
    if (withdraw_waiting(*function.task)) {
      // The target has never heard of it, so there is nothing to ask it (and an ABORT TASK with a
      // CmdSN that is not used yet would make a hole in the sequence).
      function.outcome = FunctionOutcome::complete;
      functions_refused_.push_back(function);
      events_.schedule();
      return;
    }
  }
  functions_waiting_.push_back(function);
  start_waiting_functions();
}

// Whether the task waited here, with no byte of it sent; it then completes with not_sent.
bool Session::Impl::withdraw_waiting(const ScsiTask& task) {
  bool found = false;
  waiting_.for_each([&](ScsiTask& waiting) {
    if (&waiting == &task) {
      found = true;
      waiting.unlink();
      --commands_in_flight_;
      refused_.push_back(waiting);
    }
  });
  return found;
}

Session::Impl::FunctionSlot* Session::Impl::free_function_slot() {
  const auto found = std::find_if(functions_.begin(), functions_.end(), [](const auto& slot) {
    return slot.state == FunctionSlot::State::free;
  });
  return found == functions_.end() ? nullptr : &*found;
}

void Session::Impl::start_waiting_functions() {
  while (!functions_waiting_.empty()) {
    FunctionSlot* slot = free_function_slot();
    if (slot == nullptr) {
      return;
    }
    TaskManagement& request = *functions_waiting_.pop_front();
    slot->referenced_task_tag = kReservedTag;
    slot->ref_cmd_sn = 0;
    if (request.function == TaskFunction::abort_task) {
      for (std::size_t index = 0; index < table_.size(); ++index) {
        const TaskSlot& task = table_.slot_at(index);
        if (task.task == request.task) {
          slot->referenced_task_tag = table_.tag_at(index);
          slot->ref_cmd_sn = task.cmd_sn;
        }
      }
      if (slot->referenced_task_tag == kReservedTag) {
        request.outcome = FunctionOutcome::no_such_task;
        functions_refused_.push_back(request);
        events_.schedule();
        continue;
      }
    }
    slot->request = &request;
    start_function(*slot, request.function, request.lun);
    if (request.patient) {
      slot->deadline = TimePoint::max();
    }
  }
}

void Session::Impl::abandon(TaskManagement& function) {
  const auto slot = std::find_if(functions_.begin(), functions_.end(),
                                 [&](const auto& used) { return used.request == &function; });
  if (slot == functions_.end()) {
    static_cast<ListHook<TaskManagement>&>(function).unlink();  // it waits for a slot
  } else if (slot->state == FunctionSlot::State::sent) {
    slot->request = nullptr;
    slot->state = FunctionSlot::State::abandoned;
  } else {
    release_function(*slot);
  }
}

void Session::Impl::start_function(FunctionSlot& slot, TaskFunction function, std::uint64_t lun) {
  ++functions_used_;
  ++slot.generation;
  slot.state = FunctionSlot::State::queued;
  slot.function = function;
  slot.lun = lun;
  slot.deadline = reactor_.now() + function_timeout(function);
  schedule_flush();
  if (idle_tick_) {
    start_tick();
  }
}

Duration Session::Impl::function_timeout(TaskFunction function) const {
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

std::uint32_t Session::Impl::tag_of(const FunctionSlot& slot) const {
  return (kFunctionTags + static_cast<std::uint32_t>(&slot - functions_.data())) |
         std::uint32_t{slot.generation} << 16;
}

Session::Impl::FunctionSlot* Session::Impl::find_function(std::uint32_t tag) {
  const std::uint32_t index = (tag & 0xffff) - kFunctionTags;
  if (index >= functions_.size() || tag_of(functions_[index]) != tag ||
      functions_[index].state == FunctionSlot::State::free) {
    return nullptr;
  }
  return &functions_[index];
}

// Immediate, so that a closed command window does not hold it back: it carries the CmdSN of the
// next command and does not use it up.
void Session::Impl::stage_functions() {
  if (functions_used_ == 0) [[likely]] {
    return;
  }
  for (FunctionSlot& slot : functions_) {
    if (slot.state != FunctionSlot::State::queued) {
      continue;
    }
    slot.state = FunctionSlot::State::sent;
    slot.cmd_sn = numbers_.cmd_sn;
    encode(TaskManagementRequestPdu{.function = slot.function,
                                    .lun = slot.lun,
                                    .initiator_task_tag = tag_of(slot),
                                    .referenced_task_tag = slot.referenced_task_tag,
                                    .cmd_sn = numbers_.cmd_sn,
                                    .exp_stat_sn = numbers_.exp_stat_sn(),
                                    .ref_cmd_sn = slot.ref_cmd_sn},
           batch_.add_header());
  }
}

void Session::Impl::handle_task_management_response(const TaskManagementResponsePdu& pdu) {
  FunctionSlot* slot = find_function(pdu.initiator_task_tag);
  if (slot == nullptr || slot->state == FunctionSlot::State::queued ||
      slot->state == FunctionSlot::State::deferred ||
      slot->state == FunctionSlot::State::answered) {
    fail_protocol("a Task Management Response that answers no request");
    return;
  }
  take_status_numbers(pdu.numbers);
  switch (pdu.response) {
    case 0:
      function_answered(*slot, FunctionOutcome::complete);
      return;
    case 1:
      function_answered(*slot, FunctionOutcome::no_such_task);
      return;
    case 2:
      function_answered(*slot, FunctionOutcome::no_such_lun);
      return;
    case 5:
      function_answered(*slot, FunctionOutcome::unsupported);
      return;
    default:
      function_answered(*slot, FunctionOutcome::refused);
  }
}

void Session::Impl::function_answered(FunctionSlot& slot, FunctionOutcome outcome) {
  if (outcome == FunctionOutcome::complete) {
    end_tasks(slot);
  }
  if (slot.request != nullptr) {
    TaskManagement& request = *slot.request;
    release_function(slot);
    complete_function(request, outcome);
    return;
  }
  const std::uint64_t lun = slot.lun;
  const bool overtaken = slot.state == FunctionSlot::State::abandoned ||
                         (slot.function == TaskFunction::abort_task &&
                          table_.find(slot.referenced_task_tag) == nullptr);
  if (overtaken || outcome == FunctionOutcome::complete) {
    release_function(slot);
  } else if (outcome == FunctionOutcome::no_such_task) {
    // On one connection the task's own answer cannot be behind this one, but some targets answer
    // from several threads: it has until the deadline.
    slot.state = FunctionSlot::State::answered;
  } else if (slot.function == TaskFunction::logical_unit_reset) {
    release_function(slot);
    fail_connection({ErrorCode::timed_out,
                     fmt::format("{} answers, but not a command, nor can its LUN be reset ({})",
                                 where(), to_string(outcome))});
  } else {
    release_function(slot);
    escalate(lun);
  }
}

void Session::Impl::release_function(FunctionSlot& slot) {
  slot.state = FunctionSlot::State::free;
  slot.request = nullptr;
  --functions_used_;
  start_waiting_functions();
}

// The target has confirmed the end of these tasks: their data is no longer wanted, and nothing of
// them will be executed any further (SAM-5 7.2 to 7.7).
void Session::Impl::end_tasks(const FunctionSlot& slot) {
  const bool whole_session = slot.function == TaskFunction::target_warm_reset ||
                             slot.function == TaskFunction::target_cold_reset;
  for (std::size_t index = 0; index < table_.size(); ++index) {
    TaskSlot& task = table_.slot_at(index);
    if (task.task == nullptr || !serial_before(task.cmd_sn, slot.cmd_sn)) {
      continue;
    }
    const bool meant = slot.function == TaskFunction::abort_task
                           ? table_.tag_at(index) == slot.referenced_task_tag
                           : whole_session || task.task->lun == slot.lun;
    if (meant) {
      task.task->outcome = TaskOutcome::aborted;
      if (slot.function == TaskFunction::abort_task) {
        ScsiTask::count_up(task.task->stuck);
      }
      task.task->transferred_bytes = 0;
      finish(task);
    }
  }
}

void Session::Impl::complete_function(TaskManagement& function, FunctionOutcome outcome) {
  function.outcome = outcome;
  function.on_complete(function);
}

// The connection is gone.
void Session::Impl::complete_functions(FunctionOutcome sent, FunctionOutcome not_sent) {
  for (FunctionSlot& slot : functions_) {
    TaskManagement* request = std::exchange(slot.request, nullptr);
    const bool unsent = slot.state == FunctionSlot::State::queued;
    slot.state = FunctionSlot::State::free;
    if (request != nullptr) {
      complete_function(*request, unsent ? not_sent : sent);
    }
  }
  functions_used_ = 0;
  while (TaskManagement* waiting = functions_waiting_.pop_front()) {
    complete_function(*waiting, not_sent);
  }
}

void Session::Impl::complete_refused_functions() {
  IntrusiveList<TaskManagement> refused;
  refused.take_all(functions_refused_);
  while (TaskManagement* function = refused.pop_front()) {
    function->on_complete(*function);
  }
}

}  // namespace iscsi_blkback
