// What a session's users ask of it, and what watches over their commands: keep-alive, watchdog,
// functions.
#include <fmt/format.h>

#include "base/log.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

void Session::submit(ScsiTask& task) {
  if (state_ != SessionState::logged_in) {
    queue_.refuse(task);
    return;
  }
  if (queue_.submit(task)) {
    const TimePoint now = reactor_.turn_time();
    keep_alive_.on_busy(now);
    watchdog_.on_busy(now);
  }
}

bool Session::detach_buffer(ScsiTask& task) {
  if (receiver_.in_large_data_in()) {
    const TaskSlot* slot = queue_.find(receiver_.large_data_in().initiator_task_tag);
    if (slot != nullptr && slot->task == &task) {
      return false;
    }
  }
  task.data = nullptr;
  return true;
}

void Session::submit(TaskManagement& function) {
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

void Session::on_scan_due() {
  watchdog_.begin_scan();
  scan_for_stuck_commands();
  if (full_feature_phase() && queue_.busy()) {
    watchdog_.schedule(reactor_.now());
  }
}

void Session::scan_for_stuck_commands() {
  if (!queue_.busy()) {
    pass_status_gaps();
    watchdog_.nothing_outstanding();
    return;
  }
  const std::uint32_t oldest_moving = watchdog_.oldest_moving(queue_.table(), numbers_.cmd_sn);
  queue_.table().for_each([&](const TaskSlot& slot) {
    if (full_feature_phase() && watchdog_.stuck(slot, oldest_moving)) {
      if (const Result<void> aborted = functions_.abort_stuck(slot); !aborted) {
        give_up(aborted.error());
      }
    }
  });
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

void Session::hasten_timeout(std::uint64_t lun) {
  if (options_.command_timeout.count() == 0) {
    // Nothing scans them, so that those which were ended without an answer would be waited for as
    // long as the connection lives.
    if (queue_.table().find_if([lun](const TaskSlot& slot) { return slot.task->lun == lun; })) {
      fail_connection({ErrorCode::timed_out,
                       fmt::format("{} may have ended commands for LUN {} without an answer",
                                   where(), lun_text(lun))});
    }
    return;
  }
  watchdog_.hasten(queue_.table(), lun);
}

bool Session::may_reset(std::uint64_t lun) noexcept {
  bool allowed = false;
  bool refused = false;
  observers_.for_each([&](const SessionObserver& observer) {
    const ResetConsent consent = observer.may_reset(lun);
    allowed = allowed || consent == ResetConsent::allowed;
    refused = refused || consent == ResetConsent::refused;
  });
  return allowed && !refused;
}

void Session::warn(const std::string& text) noexcept {
  log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}: {}", where(), text);
}

void Session::give_up(const Error& why) noexcept {
  fail_connection({why.code, fmt::format("{} {}", where(), why.message)});
}

void Session::function_answered(std::uint32_t tag, FunctionOutcome outcome) {
  if (const Result<void> taken = functions_.answered(tag, outcome); !taken) {
    give_up(taken.error());
  }
}

// It asks whether anything at all has arrived. Which command is late on a living connection,
// CommandWatchdog finds out.
void Session::on_keep_alive_due() {
  pass_status_gaps();
  const TimePoint now = reactor_.now();
  const bool busy = queue_.busy();
  switch (keep_alive_.look(now, busy)) {
    case KeepAlive::Verdict::lives:
      break;
    case KeepAlive::Verdict::ask:
      queue_ping();
      break;
    case KeepAlive::Verdict::silent:
      if (!keep_alive_.goes_on(now, busy, silence())) {
        queue_.count_stall();
        fail_connection({ErrorCode::timed_out,
                         fmt::format("{} has stopped answering (no reply to a NOP-Out)", where())});
        return;
      }
      break;
  }
  keep_alive_.schedule(now, busy);
}

// The connection is about to end, for whatever reason.
void Session::stop_watching() {
  keep_alive_.stop();
  watchdog_.stop();
  functions_.stop_waiting();
}

// Whether the peer's kernel is there is asked for from now on where silence() will be wanted.
void Session::ask_for_peer() {
  if (keep_alive_.may_wait_on(reactor_.turn_time(), queue_.one_given_up_before())) [[unlikely]] {
    static_cast<void>(stream_->peer_silence());
  }
}

KeepAlive::Silence Session::silence() {
  if (!queue_.busy() || stopping_) {
    return {};
  }
  return {.may_wait = true,
          .peer_silence = stream_->peer_silence(),
          .given_up_before = queue_.one_given_up_before()};
}

void Session::note_end_of_silence() {
  const TimePoint now = reactor_.turn_time();
  const Duration longest = keep_alive_.end_silence(now);
  // Their turn had not come.
  watchdog_.grant_all(queue_.table());
  log_limited(
      log_limiter_, now, LogLevel::warning, "session",
      "{} has answered after {} s of silence, while its computer was alive all the time: it "
      "is waited for longer from now on",
      where(), std::chrono::duration_cast<std::chrono::seconds>(longest).count());
}

void Session::ping() {
  if (state_ != SessionState::logged_in) {
    return;
  }
  keep_alive_.ask();
  if (!keep_alive_.ping_outstanding()) {
    queue_ping();
  }
  keep_alive_.schedule(reactor_.now(), queue_.busy());
}

void Session::ping_answered() {
  if (keep_alive_.answered(reactor_.turn_time(), queue_.busy())) {
    events_.schedule();
  }
}

void Session::deliver_ping_answered() {
  if (keep_alive_.take_answer() && state_ == SessionState::logged_in) {
    observers_.for_each([this](SessionObserver& observer) { observer.on_ping_answered(*this); });
  }
}

void Session::queue_ping() {
  keep_alive_.queue_ping(reactor_.now());
  ask_for_peer();
  schedule_flush();
}

}  // namespace iscsi_blkback
