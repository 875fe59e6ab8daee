#include "base/reactor.h"

#include <algorithm>

namespace iscsi_blkback {

void Timer::start_at(TimePoint deadline) {
  stop();
  deadline_ = deadline;
  reactor_.arm(*this);
}

void Timer::start_after(Duration delay) {
  start_at(reactor_.now() + delay);
}

void Timer::stop() {
  if (armed()) {
    reactor_.disarm(*this);
  }
}

void Deferred::schedule() {
  if (!linked()) {
    // What has run in this turn waits in a list of its own; see Reactor::run_deferred().
    (ran_in_turn_ == reactor_.turn_ ? reactor_.deferred_again_ : reactor_.deferred_)
        .push_back(*this);
  }
}

void Deferred::cancel() {
  if (linked()) {
    unlink();
  }
}

Reactor::~Reactor() {
  // Timers and tasks hold a reference to the reactor; whoever owns them went away before it.
  ISCSI_BLKBACK_ASSERT(timers_.empty());
  ISCSI_BLKBACK_ASSERT(!has_deferred());
}

bool Reactor::next_deadline(TimePoint& deadline) const {
  if (timers_.empty()) {
    return false;
  }
  deadline = timers_.front()->deadline_;
  return true;
}

void Reactor::run_due_timers(TimePoint now) {
  ++timer_run_;
  latest_run_ = now;
  while (!timers_.empty()) {
    Timer& first = *timers_.front();
    if (first.deadline_ > now || first.armed_in_run_ == timer_run_) {
      return;
    }
    disarm(first);
    first.callback_(first.owner_);
  }
}

void Reactor::run_deferred() {
  while (Deferred* task = deferred_.pop_front()) {
    task->ran_in_turn_ = turn_;
    task->callback_(task->owner_);
  }
  ++turn_;
  deferred_.take_all(deferred_again_);
}

bool Reactor::memory_has_work() {
  bool any = false;
  memory_.for_each([&any](MemoryWatch& watch) {
    if (watch.has_work()) {
      watch.unlink();
      any = true;
    }
  });
  return any;
}

bool Reactor::memory_asks_to_ring() {
  bool any = false;
  while (MemoryWatch* watch = memory_.pop_front()) {
    any = watch->ask_to_ring() || any;
  }
  return any;
}

void Reactor::arm(Timer& timer) {
  // A deadline in the past is due as much as one that is now; were it sorted before those, a timer
  // that re-arms itself so would keep them from firing.
  timer.deadline_ = std::max(timer.deadline_, latest_run_);
  timer.tie_ = timer_tie();
  timer.armed_in_run_ = timer_run_;
  timers_.push_back(&timer);
  move_up(timer, timers_.size() - 1);
}

void Reactor::disarm(Timer& timer) {
  const std::size_t hole = timer.heap_index_;
  ISCSI_BLKBACK_ASSERT(hole < timers_.size() && timers_[hole] == &timer);
  Timer& last = *timers_.back();
  timers_.pop_back();
  timer.heap_index_ = Timer::kNotArmed;
  if (&last == &timer) {
    return;
  }
  if (hole > 0 && fires_before(last, *timers_[(hole - 1) / 2])) {
    move_up(last, hole);
  } else {
    move_down(last, hole);
  }
}

bool Reactor::fires_before(const Timer& a, const Timer& b) {
  return a.deadline_ != b.deadline_ ? a.deadline_ < b.deadline_ : a.tie_ < b.tie_;
}

void Reactor::place(Timer& timer, std::size_t index) {
  timers_[index] = &timer;
  timer.heap_index_ = index;
}

void Reactor::move_up(Timer& timer, std::size_t index) {
  while (index > 0 && fires_before(timer, *timers_[(index - 1) / 2])) {
    place(*timers_[(index - 1) / 2], index);
    index = (index - 1) / 2;
  }
  place(timer, index);
}

void Reactor::move_down(Timer& timer, std::size_t index) {
  for (;;) {
    std::size_t child = 2 * index + 1;
    if (child >= timers_.size()) {
      break;
    }
    if (child + 1 < timers_.size() && fires_before(*timers_[child + 1], *timers_[child])) {
      ++child;
    }
    if (!fires_before(*timers_[child], timer)) {
      break;
    }
    place(*timers_[child], index);
    index = child;
  }
  place(timer, index);
}

}  // namespace iscsi_blkback
