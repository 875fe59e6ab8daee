#include "multipath/groups/priority_poll.h"

#include <algorithm>

namespace iscsi_blkback {

PriorityPoll::PriorityPoll(Reactor& reactor, std::chrono::milliseconds interval,
                           std::chrono::milliseconds max_interval, const PathSet& paths,
                           Owner& owner)
    : reactor_(reactor),
      interval_(interval),
      max_interval_(max_interval),
      paths_(paths),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<PriorityPoll*>(self)->on_timer(); },
          this) {}

void PriorityPoll::start() {
  timer_.stop();
  if (is_dynamic(kind_)) {
    next_interval_ = interval_;
    measure_at_ = {};
    start_timer();
  }
}

// Mean latencies are at hand without asking anybody.
void PriorityPoll::start_timer() {
  timer_.start_after(
      with_jitter(measures_latency() ? Duration(interval_) : next_interval_, reactor_.random()));
}

void PriorityPoll::follow_closely() {
  next_interval_ = interval_;
  measure_at_ = std::min(measure_at_, reactor_.now() + next_interval_);
  if (timer_.armed() && timer_.deadline() > reactor_.now() + next_interval_) {
    start_timer();
  }
}

void PriorityPoll::on_timer() {
  next_interval_ =
      std::max<Duration>(std::min<Duration>(next_interval_ * 2, max_interval_), interval_);
  start_timer();
  if (!measures_latency()) {
    ask_for_access();
    return;
  }
  owner_.update_priorities();
  if (reactor_.now() >= measure_at_) {
    measure_at_ = reactor_.now() + next_interval_;
    measure_idle_paths();
  }
}

// Paths that are not up are not used; PathChecker sees to them.
void PriorityPoll::ask_for_access() {
  PathMask asking = 0;
  for (const Path* path : paths_) {
    asking |=
        PathSet::has(paths_.up(), *path) && asks_for_its_group(*path) ? path_bit(path->index()) : 0;
  }
  for (Path* path : paths_) {
    if (PathSet::has(asking, *path)) {
      path->follow_access();
    }
  }
}

// REPORT TARGET PORT GROUPS answers for all ports of a group (GroupController::share_port_groups()):
// one path of it asks, another one when that is not answered.
bool PriorityPoll::asks_for_its_group(const Path& path) const {
  const TargetPortGroup* const group = path.access().group();
  if (kind_ != PrioritizerKind::alua || group == nullptr) {
    return true;
  }
  for (const Path* other : paths_) {
    if (other == &path) {
      return true;
    }
    const TargetPortGroup* const same = other->access().group();
    if (PathSet::has(paths_.answering(), *other) && !other->awaits_answer() && same != nullptr &&
        same->tag == group->tag && other->lun() == path.lun() &&
        other->session().options().target_name == path.session().options().target_name) {
      return false;
    }
  }
  return true;
}

// A path that is not used, because it was slow, would never show that it is fast again; nor one of
// an idle disk that it has become slow.
void PriorityPoll::measure_idle_paths() {
  for (Path* path : paths_) {
    const std::uint32_t timed = path->take_timed_requests();
    if (timed < LatencyEstimate::kRequestsMin && !suspended_ && path->state() == PathState::up &&
        !PathSet::has(paths_.suspect(), *path) &&
        path->session().state() == SessionState::logged_in && !path->measuring()) {
      path->measure();
    }
  }
}

}  // namespace iscsi_blkback
