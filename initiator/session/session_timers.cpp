#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/session/session_impl.h"

namespace iscsi_blkback {

void Session::Impl::on_login_overdue() {
  fail_connection({ErrorCode::timed_out,
                   where() + (state_ == SessionState::connecting
                                  ? " does not answer; check the address, cable and firewall"
                                  : " accepts the connection but does not answer the login")});
}

void Session::Impl::on_logout_due() {
  if (logout_.over(reactor_.now())) {
    fail_connection(
        {ErrorCode::timed_out, fmt::format("{} did not finish the logout in time", where())});
    return;
  }
  logout_.end_drain();
  schedule_flush();
}

// It asks whether anything at all has arrived. Which command is late on a living connection,
// CommandWatchdog finds out.
void Session::Impl::on_keep_alive_due() {
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
        queue_.count_silence();
        fail_connection({ErrorCode::timed_out,
                         fmt::format("{} has stopped answering (no reply to a NOP-Out)", where())});
        return;
      }
      break;
  }
  keep_alive_.schedule(now, busy);
}

// The connection is about to end, for whatever reason.
void Session::Impl::stop_watching() {
  keep_alive_.stop();
  watchdog_.stop();
  functions_.stop_waiting();
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
  keep_alive_.schedule(reactor_.now(), queue_.busy());
}

void Session::Impl::ping_answered() {
  if (keep_alive_.answered(reactor_.turn_time(), queue_.busy())) {
    events_.schedule();
  }
}

void Session::Impl::deliver_ping_answered() {
  if (keep_alive_.take_answer() && state_ == SessionState::logged_in) {
    observers_.for_each([this](SessionObserver& observer) { observer.on_ping_answered(session_); });
  }
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
      retry_timer_.start_after(Duration::zero());
      return;
    case RedirectChain::Next::after_back_off:
      break;
  }
  retry_timer_.start_after(backoff_.next_wait(reactor_.random(), login_.take_another_offer()));
}

}  // namespace iscsi_blkback
