#include <fmt/format.h>

#include "base/log.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/session/session_impl.h"

namespace iscsi_blkback {
namespace {

FunctionOutcome outcome_of(std::uint8_t response) {  // RFC 7143 11.6.1
  switch (response) {
    case 0:
      return FunctionOutcome::complete;
    case 1:
      return FunctionOutcome::no_such_task;
    case 2:
      return FunctionOutcome::no_such_lun;
    case 5:
      return FunctionOutcome::unsupported;
    default:
      return FunctionOutcome::refused;
  }
}

}  // namespace

void Session::Impl::manage(TaskManagement& function) {
  if (state_ != SessionState::logged_in) {
    functions_.finish_unsent(function, FunctionOutcome::not_sent);
    return;
  }
  if (function.function == TaskFunction::abort_task) {
    ISCSI_BLKBACK_ASSERT(function.task != nullptr);
    if (queue_.withdraw(*function.task)) {
      // The target has never heard of it, so there is nothing to ask it (and an ABORT TASK with a
      // CmdSN that is not used yet would make a hole in the sequence).
      functions_.finish_unsent(function, FunctionOutcome::complete);
      return;
    }
  }
  functions_.start(function);
}

void Session::Impl::on_scan_due() {
  watchdog_.begin_scan();
  scan_for_stuck_commands();
  if (full_feature_phase() && queue_.busy()) {
    watchdog_.schedule(reactor_.now());
  }
}

void Session::Impl::scan_for_stuck_commands() {
  if (!queue_.busy()) {
    pass_status_gaps();
    watchdog_.nothing_outstanding();
    return;
  }
  const std::uint32_t oldest_moving = watchdog_.oldest_moving(queue_.table(), numbers_.cmd_sn);
  for (std::size_t index = 0; index < queue_.table().size() && full_feature_phase(); ++index) {
    if (TaskSlot& slot = queue_.table().slot_at(index); watchdog_.stuck(slot, oldest_moving)) {
      if (const Result<void> aborted = functions_.abort_stuck(slot); !aborted) {
        give_up(aborted.error());
      }
    }
  }
  statistics_.stuck_commands = functions_.stuck_commands();
  // A window that nothing gets through: no command to abort, and no way on but a new login.
  const bool held_up =
      queue_.has_waiting() && oldest_moving == numbers_.cmd_sn && !functions_.one_ends();
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
    for (std::size_t index = 0; index < queue_.table().size(); ++index) {
      const TaskSlot& slot = queue_.table().slot_at(index);
      if (slot.task != nullptr && slot.task->lun == lun) {
        fail_connection({ErrorCode::timed_out,
                         fmt::format("{} may have ended commands for LUN {} without an answer",
                                     where(), lun_text(lun))});
        return;
      }
    }
    return;
  }
  watchdog_.hasten(queue_.table(), lun);
}

bool Session::Impl::may_reset(std::uint64_t lun) noexcept {
  bool allowed = false;
  bool refused = false;
  observers_.for_each([&](const SessionObserver& observer) {
    const ResetConsent consent = observer.may_reset(lun);
    allowed = allowed || consent == ResetConsent::allowed;
    refused = refused || consent == ResetConsent::refused;
  });
  return allowed && !refused;
}

void Session::Impl::warn(const std::string& text) noexcept {
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}: {}", where(), text);
}

void Session::Impl::tell_tolerated(Tolerated rule, std::string_view details) {
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{} {}{}", where(),
              to_string(rule), details);
}

void Session::Impl::give_up(const Error& why) noexcept {
  fail_connection({why.code, fmt::format("{} {}", where(), why.message)});
}

void Session::Impl::function_answered(std::uint32_t tag, FunctionOutcome outcome) {
  if (const Result<void> taken = functions_.answered(tag, outcome); !taken) {
    give_up(taken.error());
  }
}

void Session::Impl::handle_task_management_response(const TaskManagementResponsePdu& pdu) {
  if (!functions_.expects_answer(pdu.initiator_task_tag)) {
    fail_protocol("a Task Management Response that answers no request");
    return;
  }
  answers_.take_status_numbers(pdu.numbers);
  function_answered(pdu.initiator_task_tag, outcome_of(pdu.response));
}

}  // namespace iscsi_blkback
