#include "multipath/requests/no_path_timer.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

NoPathTimer::Paths NoPathTimer::Paths::of(const PathSet& paths) {
  Paths now;
  now.any_up = paths.up() != 0;
  for (const Path* path : paths) {
    const bool keeps_ending = path->session().keeps_ending();
    now.any_keeps_ending = now.any_keeps_ending || keeps_ending;
    now.any_reliable = now.any_reliable || (PathSet::has(paths.up(), *path) && !keeps_ending);
  }
  return now;
}

NoPathTimer::NoPathTimer(Reactor& reactor, NoPathRetry wait, Owner& owner)
    : reactor_(reactor),
      owner_(owner),
      wait_(wait),
      timer_(
          reactor, [](void* self) noexcept { static_cast<NoPathTimer*>(self)->on_timer(); }, this) {
}

void NoPathTimer::set_wait(NoPathRetry wait) {
  if (std::exchange(wait_, wait) == wait || closed_ || !since_) {
    return;
  }
  timer_.stop();
  if (std::exchange(expired_, false)) {
    queueing_since_ = reactor_.now();
  }
  start_timer();
}

void NoPathTimer::on_paths(const Paths& paths, bool had_path) {
  if (paths.any_up) {
    const bool has_to_last = since_ && wait_ && !paths.any_reliable;
    if (!has_to_last) {
      end_outage();
    }
  } else if (had_path && !(since_ && paths.any_keeps_ending)) {
    since_ = queueing_since_ = reactor_.now();
    expired_ = false;
    start_timer();
  }
}

void NoPathTimer::end_outage() {
  if (std::exchange(since_, std::nullopt) && !std::exchange(expired_, false)) {
    queued_time_ += reactor_.now() - queueing_since_;
  }
  timer_.stop();
}

void NoPathTimer::suspend(GuestState state) {
  only_in_doubt_ = state == GuestState::in_doubt && (only_in_doubt_ || !suspended_);
  if (!std::exchange(suspended_, true)) {
    suspended_since_ = reactor_.now();
    timer_.stop();
  }
}

void NoPathTimer::resume() {
  suspended_ = false;
  if (closed_ || !since_ || expired_) {
    return;
  }
  const TimePoint now = reactor_.now();
  since_ = only_in_doubt_ ? *since_ + (now - std::max(suspended_since_, *since_)) : now;
  start_timer();
}

void NoPathTimer::close() {
  closed_ = true;
  timer_.stop();
}

Duration NoPathTimer::queued_time() const {
  return since_ && !expired_ ? queued_time_ + (reactor_.now() - queueing_since_) : queued_time_;
}

void NoPathTimer::start_timer() {
  if (wait_ && !suspended_) {
    timer_.start_at(*since_ + *wait_);
  }
}

void NoPathTimer::on_timer() {
  if (owner_.paths_now().any_reliable) {
    end_outage();
    owner_.on_path_has_lasted();
    return;
  }
  expired_ = true;
  ++timeouts_;
  queued_time_ += reactor_.now() - queueing_since_;
  owner_.on_no_path_retry_over();
}

}  // namespace iscsi_blkback
