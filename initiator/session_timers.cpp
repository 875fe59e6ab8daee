#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/session_impl.h"

namespace iscsi_blkback {

void Session::Impl::on_timer() {
  switch (state_) {
    case SessionState::connecting:
      fail_connection(
          {ErrorCode::timed_out,
           fmt::format("{} does not answer; check the address, cable and firewall", where())});
      return;
    case SessionState::in_login:
      fail_connection(
          {ErrorCode::timed_out,
           fmt::format("{} accepts the connection but does not answer the login", where())});
      return;
    case SessionState::logged_in:
      tick();
      return;
    case SessionState::in_logout:
      fail_connection(
          {ErrorCode::timed_out, fmt::format("{} did not finish the logout in time", where())});
      return;
    case SessionState::transport_wait:
      connect();
      return;
    case SessionState::free:
    case SessionState::cleanup_wait:
      return;
  }
}

// One coarse timer watches all commands: it asks whether anything at all has arrived, not which
// command is late; a command that is late on a living session is its submitter's business.
void Session::Impl::tick() {
  const TimePoint now = reactor_.now();
  const bool busy = commands_in_flight_ != 0;
  if (ping_outstanding_) {
    TimePoint deadline =
        std::max(last_received_, ping_since_) + Duration{options_.noop_out_timeout};
    if (busy && options_.path_timeout.count() != 0) {
      // Silence for path_timeout in all, of which the ping had at least three quarters of its
      // share.
      const Duration share = std::max<Duration>(options_.path_timeout - options_.stall_probe,
                                                options_.path_timeout / 4);
      deadline = std::min(deadline, std::max(std::max(last_received_, busy_since_) +
                                                 Duration{options_.path_timeout},
                                             ping_since_ + share * 3 / 4));
    }
    if (now >= deadline) {
      fail_connection({ErrorCode::timed_out,
                       fmt::format("{} has stopped answering (no reply to a NOP-Out)", where())});
      return;
    }
  } else {
    const Duration quiet = now - last_received_;
    const Duration stalled = busy ? now - std::max(last_received_, busy_since_) : Duration::zero();
    if ((options_.stall_probe.count() != 0 && stalled >= options_.stall_probe) ||
        (options_.noop_out_interval.count() != 0 && quiet >= options_.noop_out_interval)) {
      queue_ping();
    }
  }
  start_tick();
}

void Session::Impl::start_tick() {
  // Without commands only noop_out_interval matters, and nothing wakes up more often than that
  // asks.
  idle_tick_ = commands_in_flight_ == 0 && !ping_outstanding_;
  Duration period = std::chrono::milliseconds{125};
  if (idle_tick_) {
    if (options_.noop_out_interval.count() == 0) {
      timer_.stop();
      return;
    }
    timer_.start_at(std::max(last_received_ + Duration{options_.noop_out_interval},
                             reactor_.now() + Duration{std::chrono::milliseconds{1}}));
    return;
  }
  for (const auto limit : {options_.stall_probe, options_.path_timeout}) {
    if (limit.count() != 0) {
      period = std::min<Duration>(
          period, std::max<Duration>(Duration{limit} / 8, std::chrono::milliseconds{1}));
    }
  }
  timer_.start_after(period);
}

void Session::Impl::schedule_retry() {
  if (stopping_) {
    return;  // process_events finishes the stop
  }
  state_ = SessionState::transport_wait;
  if (std::exchange(redirecting_, false)) {
    timer_.start_after(Duration::zero());
    return;
  }
  redirected_to_.reset();  // the next try starts at the portal that was configured
  redirect_hops_ = 0;
  const std::uint32_t doublings = std::min(failures_++, 16U);
  const Duration longest = std::min<Duration>(options_.relogin_backoff_max,
                                              options_.relogin_backoff_min * (1U << doublings));
  // Between half and all of it, so that the paths of many guests do not come back in step.
  const auto half = static_cast<std::uint64_t>(longest.count() / 2);
  const Duration jittered =
      longest / 2 + Duration{static_cast<std::int64_t>(reactor_.random() % (half + 1))};
  timer_.start_after(std::max(jittered, std::exchange(wait_demanded_, Duration::zero())));
}

}  // namespace iscsi_blkback
