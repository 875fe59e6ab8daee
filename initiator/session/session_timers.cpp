#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/session/session_impl.h"

namespace iscsi_blkback {

void Session::Impl::on_timer() {
  switch (state_) {
    case SessionState::logged_in:
      tick();
      return;
    case SessionState::in_logout:
      on_logout_timer();
      return;
    case SessionState::transport_wait:
      connect();
      return;
    case SessionState::free:
    case SessionState::connecting:
    case SessionState::in_login:
    case SessionState::cleanup_wait:
      return;
  }
}

void Session::Impl::on_login_overdue() {
  fail_connection({ErrorCode::timed_out,
                   where() + (state_ == SessionState::connecting
                                  ? " does not answer; check the address, cable and firewall"
                                  : " accepts the connection but does not answer the login")});
}

void Session::Impl::on_logout_timer() {
  const TimePoint now = reactor_.now();
  if (logout_.over(now)) {
    fail_connection(
        {ErrorCode::timed_out, fmt::format("{} did not finish the logout in time", where())});
    return;
  }
  if (logout_.end_drain(now)) {
    schedule_flush();
  }
  if (logout_.sent()) {
    start_tick();
  } else {
    tick();  // a target that has died meanwhile is not waited for
  }
}

// One coarse timer watches the connection: it asks whether anything at all has arrived. Which
// command is late on a living one, watch_commands() finds out.
void Session::Impl::tick() {
  pass_status_gaps();
  watch_commands();
  if (!full_feature_phase()) {
    return;
  }
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
        queue_.count_silence();
        fail_connection({ErrorCode::timed_out,
                         fmt::format("{} has stopped answering (no reply to a NOP-Out)", where())});
        return;
      }
      break;
  }
  start_tick();
}

// Whether the peer's kernel is there is asked for from now on where silence() will be wanted.
void Session::Impl::ask_for_peer() {
  if (keep_alive_.may_wait_on(reactor_.turn_time(), queue_.one_given_up_before())) [[unlikely]] {
    static_cast<void>(stream_->peer_silence());
  }
}

KeepAlive::Silence Session::Impl::silence() {
  if (!queue_.busy() || stopping_) {
    return {};
  }
  return {.may_wait = true,
          .peer_silence = stream_->peer_silence(),
          .given_up_before = queue_.one_given_up_before()};
}

void Session::Impl::note_end_of_silence() {
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

void Session::Impl::ping() {
  if (state_ != SessionState::logged_in) {
    return;
  }
  keep_alive_.ask();
  if (!keep_alive_.ping_outstanding()) {
    queue_ping();
  }
  start_tick();
}

void Session::Impl::ping_answered() {
  if (keep_alive_.answered()) {
    events_.schedule();
  }
}

void Session::Impl::deliver_ping_answered() {
  if (keep_alive_.take_answer() && state_ == SessionState::logged_in) {
    observers_.for_each([this](SessionObserver& observer) { observer.on_ping_answered(session_); });
  }
}

void Session::Impl::start_tick() {
  if (state_ == SessionState::in_logout && logout_.sent()) {
    timer_.start_at(logout_.next_event());
    return;
  }
  // Without commands only noop_out_interval matters, and nothing wakes up more often than that
  // asks.
  idle_tick_ = !queue_.busy() && functions_.used() == 0 && !keep_alive_.ping_outstanding() &&
               state_ == SessionState::logged_in;
  Duration period = std::chrono::milliseconds{125};
  if (idle_tick_) {
    if (options_.noop_out_interval.count() == 0) {
      timer_.stop();
      return;
    }
    timer_.start_at(std::max(keep_alive_.last_received() + Duration{options_.noop_out_interval},
                             reactor_.now() + Duration{std::chrono::milliseconds{1}}));
    return;
  }
  if (options_.path_timeout.count() != 0) {
    period = std::min<Duration>(period, std::max<Duration>(Duration{options_.path_timeout} / 8,
                                                           std::chrono::milliseconds{1}));
  }
  if (options_.command_timeout.count() != 0) {
    period = std::min<Duration>(period, std::max<Duration>(Duration{options_.command_timeout} / 16,
                                                           std::chrono::milliseconds{1}));
  }
  if (functions_.used() != 0) {
    for (const auto limit :
         {options_.abort_timeout, options_.lu_reset_timeout, options_.tgt_reset_timeout}) {
      period = std::min<Duration>(
          period, std::max<Duration>(Duration{limit} / 8, std::chrono::milliseconds{1}));
    }
  }
  TimePoint next = reactor_.now() + period;
  // What somebody waits for comes exactly then.
  if (watchdog_.next_scan() > reactor_.now()) {
    next = std::min(next, watchdog_.next_scan());
  }
  next = std::min(next, keep_alive_.next_look(queue_.busy()));
  if (state_ == SessionState::in_logout) {
    next = std::min(next, logout_.next_event());
  }
  timer_.start_at(next);
}

void Session::Impl::on_address_found(const Result<void>& found) {
  if (found) {
    connect();
    return;
  }
  ++statistics_.login_failures;
  Error why{found.error().code, fmt::format("{} {}", where(), found.error().message)};
  if (why.message != last_error_.message) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}", why.message);
  }
  last_error_ = std::move(why);
  schedule_retry();
}

void Session::Impl::schedule_retry() {
  if (stopping_) {
    return;  // process_events finishes the stop
  }
  state_ = SessionState::transport_wait;
  switch (redirects_.next()) {
    case RedirectChain::Next::looking_up:
      return;
    case RedirectChain::Next::at_once:
      timer_.start_after(Duration::zero());
      return;
    case RedirectChain::Next::after_back_off:
      break;
  }
  timer_.start_after(backoff_.next_wait(reactor_.random(), login_.take_another_offer()));
}

}  // namespace iscsi_blkback
