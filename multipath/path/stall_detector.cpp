#include "multipath/path/stall_detector.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr int kLatencies = 8;
// TCP sends a packet whose acknowledgement is missing again after some 200 ms; with stall_probe at
// its default it has arrived by then.
constexpr Duration kMoment = std::chrono::milliseconds(50);

}  // namespace

StallDetector::StallDetector(Reactor& reactor, Session& session, Owner& owner)
    : reactor_(reactor),
      session_(session),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<StallDetector*>(self)->on_timer(); },
          this) {
  session_.add_observer(*this);
}

StallDetector::~StallDetector() {
  session_.remove_observer(*this);
}

void StallDetector::probe() {
  if (waits() || session_.state() != SessionState::logged_in ||
      session_.options().stall_probe.count() == 0) {
    return;  // it shows by itself, or is known to be down
  }
  probing_ = true;
  quiet_since_ = reactor_.now();
  start_timer();
  session_.ping();
}

TimePoint StallDetector::silent_at() const {
  const SessionOptions& options = session_.options();
  const Duration least = options.stall_probe;
  const Duration most = options.path_timeout.count() != 0
                            ? std::max<Duration>(options.path_timeout / 2, least)
                            : Duration::max() / 2;
  const Duration enough =
      std::min(std::max(least, kLatencies * usual_latency_) * (slow_ ? 2 : 1), most);
  return std::max(session_.last_received(), quiet_since_) + enough;
}

void StallDetector::start_timer() {
  if (session_.options().stall_probe.count() != 0) {
    timer_.start_at(silent_at());
  }
}

void StallDetector::on_timer() {
  if (suspect_) {
    goes_on_ = true;
    owner_.on_stall_persists();
    return;
  }
  if (!waits() || session_.state() != SessionState::logged_in) {
    return;  // first_sent() starts it again
  }
  const TimePoint now = reactor_.now();
  if (now < silent_at()) {
    start_timer();
    return;
  }
  suspect_ = true;
  goes_on_ = false;
  timer_.start_at(now + kMoment);
  session_.ping();
  owner_.on_suspect();
}

void StallDetector::end_suspicion() {
  if (std::exchange(suspect_, false)) {
    goes_on_ = false;
    timer_.stop();
    if (waits() && session_.state() == SessionState::logged_in) {
      start_timer();
    }
    owner_.on_suspicion_over();
  }
}

void StallDetector::on_session_up(Session& /*session*/) noexcept {
  slow_ = false;
}

void StallDetector::on_session_down(Session& /*session*/, const Error& /*why*/) noexcept {
  probing_ = false;
  timer_.stop();
  end_suspicion();
}

void StallDetector::on_ping_answered(Session& /*session*/) noexcept {
  probing_ = false;
  slow_ = suspect_ && owner_.has_outstanding();
  end_suspicion();
}

}  // namespace iscsi_blkback
