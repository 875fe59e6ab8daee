#include "initiator/session/keep_alive.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

// Between two looks at a silent target that is waited for.
constexpr Duration kMostSeldom = std::chrono::milliseconds{125};
constexpr Duration kMostOften = std::chrono::milliseconds{1};

}  // namespace

void KeepAlive::forget_connection() {
  outstanding_ = queued_ = asked_for_ = false;
  stop();
}

TimePoint KeepAlive::silent_since() const {
  return std::max(last_received_, busy_since_);
}

KeepAlive::Verdict KeepAlive::look(TimePoint now, bool busy) const {
  if (outstanding_) {
    return waits_on_ || now >= deadline(busy) ? Verdict::silent : Verdict::lives;
  }
  const Duration quiet = now - last_received_;
  const Duration stalled = busy ? now - silent_since() : Duration::zero();
  const bool due = (options_.stall_probe.count() != 0 && stalled >= options_.stall_probe) ||
                   (options_.noop_out_interval.count() != 0 && quiet >= options_.noop_out_interval);
  return due ? Verdict::ask : Verdict::lives;
}

TimePoint KeepAlive::next_look(TimePoint now, bool busy) const {
  if (waits_on_) {
    return now + (options_.path_timeout.count() == 0
                      ? kMostSeldom
                      : std::clamp(Duration{options_.path_timeout} / 8, kMostOften, kMostSeldom));
  }
  if (outstanding_) {
    return deadline(busy);
  }
  TimePoint next = TimePoint::max();
  if (options_.noop_out_interval.count() != 0) {
    next = last_received_ + Duration{options_.noop_out_interval};
  }
  if (busy && options_.stall_probe.count() != 0) {
    next = std::min(next, silent_since() + Duration{options_.stall_probe});
  }
  return next;
}

void KeepAlive::stop() {
  watches_ = false;
  timer_.stop();
}

void KeepAlive::schedule(TimePoint now, bool busy) {
  watches_ = true;
  if (const TimePoint next = next_look(now, busy); next != TimePoint::max()) {
    timer_.start_at(next);
  } else {
    timer_.stop();
  }
}

// What arrives puts the next look off, which is found out when its time has come; only what makes it
// come earlier arms the timer.
void KeepAlive::on_busy(TimePoint now) {
  busy_since_ = now;
  const TimePoint next = next_look(now, true);
  if (next != TimePoint::max() && (!timer_.armed() || next < timer_.deadline())) {
    timer_.start_at(next);
  }
}

// When the NOP-Out that is outstanding has not been answered for too long.
TimePoint KeepAlive::deadline(bool busy) const {
  const TimePoint deadline =
      std::max(last_received_, queued_at_) + Duration{options_.noop_out_timeout};
  if ((!busy && !asked_for_) || options_.path_timeout.count() == 0) {
    return deadline;
  }
  // Silence for path_timeout in all, of which the ping had at least three quarters of its share.
  const TimePoint asked = asked_for_ ? queued_at_ : TimePoint::max();
  const TimePoint since = busy ? std::min(busy_since_, asked) : asked;
  const Duration share =
      std::max<Duration>(options_.path_timeout - options_.stall_probe, options_.path_timeout / 4);
  return std::min(deadline,
                  std::max(std::max(last_received_, since) + Duration{options_.path_timeout},
                           queued_at_ + share * 3 / 4));
}

void KeepAlive::queue_ping(TimePoint now) {
  outstanding_ = queued_ = true;
  queued_at_ = now;
}

bool KeepAlive::answered(TimePoint now, bool busy) {
  outstanding_ = false;
  const bool told = std::exchange(asked_for_, false);
  answer_pending_ = answer_pending_ || told;
  if (watches_) {
    schedule(now, busy);
  }
  return told;
}

bool KeepAlive::goes_on(TimePoint now, bool busy, const Silence& silence) {
  waits_on_ = silence.may_wait && patience_.waits_on({.now = now,
                                                      .silent_for = now - silent_since(),
                                                      .peer_silence = silence.peer_silence,
                                                      .given_up_before = silence.given_up_before});
  return waits_on_ || now < deadline(busy);
}

Duration KeepAlive::end_silence(TimePoint now) {
  waits_on_ = false;
  patience_.answered_after(now - silent_since(), now);
  return patience_.longest_silence();
}

}  // namespace iscsi_blkback
