// What becomes of the commands that CommandWatchdog finds stuck.
//
// The ladder: ABORT TASK; where the target refuses or does not answer within abort_timeout,
// LOGICAL UNIT RESET if the disks of the LUN allow it (Session::may_reset); where that fails too,
// or the target says that there is no such task and does not answer it, the connection is dropped,
// and what was at the target is its submitter's to retry and to fence.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/session/session_impl.h"

namespace iscsi_blkback {
void Session::Impl::watch_commands() {
  const TimePoint now = reactor_.now();
  if (watchdog_.begin_scan(now)) {
    scan_for_stuck_commands();
  }
  if (functions_used_ != 0 && full_feature_phase()) {
    check_function_deadlines();
  }
}

void Session::Impl::scan_for_stuck_commands() {
  if (commands_in_flight_ == 0) {
    watchdog_.nothing_outstanding();
    return;
  }
  const std::uint32_t oldest_moving = watchdog_.oldest_moving(table_, numbers_.cmd_sn);
  for (std::size_t index = 0; index < table_.size() && full_feature_phase(); ++index) {
    if (TaskSlot& slot = table_.slot_at(index); watchdog_.stuck(slot, oldest_moving)) {
      abort_stuck_command(slot);
    }
  }
  // A window that nothing gets through: no command to abort, and no way on but a new login.
  const bool held_up = !waiting_.empty() && oldest_moving == numbers_.cmd_sn &&
                       std::none_of(functions_.begin(), functions_.end(),
                                    [](const FunctionSlot& function) { return function.ends(); });
  if (watchdog_.window_is_closed(held_up, statistics_.commands)) {
    fail_connection(
        {ErrorCode::timed_out,
         fmt::format("{} has kept its command window closed for command_timeout", where())});
  }
}

void Session::Impl::doubt_commands(std::uint64_t lun) {
  if (options_.command_timeout.count() == 0) {
    // Nothing scans them, so that those which were ended without an answer would be waited for as
    // long as the connection lives.
    for (std::size_t index = 0; index < table_.size(); ++index) {
      const TaskSlot& slot = table_.slot_at(index);
      if (slot.task != nullptr && slot.task->lun == lun) {
        fail_connection({ErrorCode::timed_out,
                         fmt::format("{} may have ended commands for LUN {} without an answer",
                                     where(), lun_text(lun))});
        return;
      }
    }
    return;
  }
  watchdog_.hasten(table_, lun);
}

void Session::Impl::abort_stuck_command(TaskSlot& slot) {
  const std::uint32_t tag = table_.tag_of(slot);
  const std::uint64_t lun = slot.task->lun;
  for (const FunctionSlot& function : functions_) {
    const bool aborting =
        function.function == TaskFunction::abort_task && function.referenced_task_tag == tag;
    const bool resetting =
        function.function == TaskFunction::logical_unit_reset && function.lun == lun;
    if (function.ends() && (aborting || resetting)) {
      return;
    }
  }
  FunctionSlot* free = free_function_slot();
  if (free == nullptr) {
    // Its turn comes when one of those under way is answered; that each of them is, or is given up,
    // is the deadlines' affair. Abandoned ones have none.
    if (std::none_of(functions_.begin(), functions_.end(),
                     [](const FunctionSlot& function) { return function.ends(); })) {
      escalate(lun);
    }
    return;
  }
  ++statistics_.stuck_commands;
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session",
              "{}: a command for LUN {} (operation 0x{:02x}) is not answered; it is aborted",
              where(), lun_text(lun), slot.task->cdb[0]);
  free->request = nullptr;
  free->referenced_task_tag = tag;
  free->ref_cmd_sn = slot.cmd_sn;
  start_function(*free, TaskFunction::abort_task, lun);
}

bool Session::Impl::may_reset(std::uint64_t lun) {
  bool allowed = false;
  bool refused = false;
  observers_.for_each([&](const SessionObserver& observer) {
    const ResetConsent consent = observer.may_reset(lun);
    allowed = allowed || consent == ResetConsent::allowed;
    refused = refused || consent == ResetConsent::refused;
  });
  return allowed && !refused;
}

// ABORT TASK has not helped.
void Session::Impl::escalate(std::uint64_t lun) {
  const auto resetting =
      std::find_if(functions_.begin(), functions_.end(), [lun](const FunctionSlot& function) {
        return function.ends() && function.request == nullptr &&
               function.function == TaskFunction::logical_unit_reset && function.lun == lun;
      });
  if (resetting != functions_.end()) {
    return;
  }
  FunctionSlot* free = may_reset(lun) ? free_function_slot() : nullptr;
  if (free == nullptr) {
    watchdog_.count_stuck(table_, lun);
    fail_connection({ErrorCode::timed_out,
                     fmt::format("{} answers, but not a command for LUN {}, nor does it abort it",
                                 where(), lun_text(lun))});
    return;
  }
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session",
              "{}: a command for LUN {} cannot be aborted; the LUN is reset", where(),
              lun_text(lun));
  free->request = nullptr;
  free->referenced_task_tag = kReservedTag;
  free->ref_cmd_sn = 0;
  start_function(*free, TaskFunction::logical_unit_reset, lun);
}

void Session::Impl::check_function_deadlines() {
  using State = FunctionSlot::State;
  const TimePoint now = reactor_.now();
  for (FunctionSlot& slot : functions_) {
    if (!full_feature_phase()) {
      return;
    }
    if (slot.state == State::free || slot.state == State::abandoned) {
      continue;
    }
    const bool own_abort = slot.request == nullptr && slot.function == TaskFunction::abort_task;
    if (own_abort && table_.find(slot.referenced_task_tag) == nullptr) {
      if (slot.state == State::sent) {
        slot.state = State::abandoned;  // its answer may still come
      } else {
        release_function(slot);
      }
      continue;
    }
    if (slot.state == State::deferred) {
      slot.state = State::queued;
      schedule_flush();
    }
    if (now < slot.deadline) {
      continue;
    }
    if (!own_abort) {
      watchdog_.count_stuck(table_, slot.lun);
      fail_connection({ErrorCode::timed_out,
                       fmt::format("{} does not answer a {}", where(), to_string(slot.function))});
      return;
    }
    if (slot.state == State::answered) {
      // It knows no such task. A reset has nothing to end there, but everybody else's commands, and
      // those at other paths without an answer, so that it would lead to the next reset.
      watchdog_.count_stuck(table_, slot.lun);
      fail_connection({ErrorCode::timed_out,
                       fmt::format("{} neither answers a command for LUN {} nor knows it any more",
                                   where(), lun_text(slot.lun))});
      return;
    }
    if (slot.state == State::sent) {
      slot.state = State::abandoned;
    } else {
      release_function(slot);
    }
    escalate(slot.lun);
  }
}

}  // namespace iscsi_blkback
