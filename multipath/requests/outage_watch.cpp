#include "multipath/requests/outage_watch.h"

#include <algorithm>

namespace iscsi_blkback {

OutageWatch::OutageWatch(Reactor& reactor, NoPathRetry wait, const PathSet& paths,
                         PathActivator& activator, RequestQueue& queue, DiskSteps& steps,
                         DiskLog& log)
    : paths_(paths),
      activator_(activator),
      queue_(queue),
      steps_(steps),
      log_(log),
      timer_(reactor, wait, *this) {}

void OutageWatch::suspend(GuestState state) {
  suspended_ = true;
  timer_.suspend(state);
}

void OutageWatch::resume() {
  suspended_ = false;
  timer_.resume();
}

Outage OutageWatch::now() const {
  const bool identifying = std::any_of(paths_.begin(), paths_.end(), [](const Path* path) {
    return path->state() == PathState::pending && path->identifying();
  });
  return outage_now({.expired = timer_.expired(),
                     .any_up = paths_.up() != 0,
                     .suspended = suspended_,
                     .activating = activator_.busy(),
                     .answer_is_near = activator_.answer_is_near(),
                     .identifying = identifying});
}

void OutageWatch::follow() {
  switch (now()) {
    case Outage::wait:
      break;
    case Outage::await_answer:
      activator_.await_answer();
      break;
    case Outage::fail:
      queue_.fail_waiting();
      break;
  }
  activator_.note_answer_awaited();
}

void OutageWatch::on_no_path_retry_over() noexcept {
  log_.warning("no path came back within no_path_retry; requests fail now");
  steps_.due(DiskStep::follow_outage);
  steps_.due(DiskStep::tell);
}

}  // namespace iscsi_blkback
