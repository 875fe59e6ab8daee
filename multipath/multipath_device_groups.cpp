// Which of a MultipathDevice's paths are used: policies, priorities, groups, failback.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

PathPlace place_of(const Path& path) {
  const SessionOptions& session = path.session().options();
  const NegotiatedParameters& negotiated = path.session().negotiated();
  return {.portal = path.portal_name(),
          .address = path.session().portal_address().to_string(),
          .interface_name = session.interface_binding.to_string(),
          .target_name = session.target_name,
          .portal_group = negotiated.target_portal_group_tag_known
                              ? fmt::format("{}", negotiated.target_portal_group_tag)
                              : std::string()};
}

// A latency on the border of two levels does not make a path change its group to and fro.
int steady_latency_priority(Duration mean, double base_number, int before) {
  for (const Duration near : {mean, mean + mean / 7, mean - mean / 8}) {
    if (latency_priority(near, base_number) == before) {
      return before;
    }
  }
  return latency_priority(mean, base_number);
}

}  // namespace

void MultipathDevice::Impl::apply_policies() {
  const PathPolicies before = policies_;
  policies_ =
      decide_policies(policy_settings_, options_.arrays.get(), ready() ? &disk_.lun() : nullptr);
  measures_latency_ = policies_.prio.kind == PrioritizerKind::path_latency;
  groups_.set_policy(policies_.path_grouping_policy);
  if (policies_.path_selector != before.path_selector || policies_.rr_min_io != before.rr_min_io) {
    groups_.set_selector(policies_.path_selector, policies_.rr_min_io, reactor_.now());
  }
  if (policies_.path_checker != before.path_checker) {
    for (Path* const path : paths_) {
      path->set_checker(policies_.path_checker);
    }
  }
  if (policies_.no_path_retry != before.no_path_retry) {
    no_path_timer_.set_wait(policies_.no_path_retry);
  }
  update_priorities();
  if (closing_) {
    return;
  }
  fencer_->look_for_trials_soon();
  const bool regrouped = policies_.path_grouping_policy != before.path_grouping_policy ||
                         !(policies_.prio == before.prio);
  if (regrouped && !groups_.groups().empty()) {
    // As when multipathd loads a map anew: other groups, of which the best is used.
    groups_.use(groups_.best());
    note_group_in_use();
  }
  consider_failback(PathGroups::kNoPath);
  priority_timer_.stop();
  if (is_dynamic(policies_.prio.kind)) {
    follow_interval_ = options_.polling_interval;
    measure_at_ = {};
    start_priority_timer();
  }
  notify_.schedule();
}

void MultipathDevice::Impl::change_policies(const PathPolicySettings& changes) {
  overrule(changes, policy_settings_);
  apply_policies();
  pump_.schedule();
}

void MultipathDevice::Impl::on_path_access(Path& path) noexcept {
  share_port_groups(path);
  update_priorities();
  look_for_activation_.schedule();
}

// What one port tells of the target's port groups holds for its other ports, and is known of all at
// the same time, so that two sides that change roles are never in one group.
void MultipathDevice::Impl::share_port_groups(const Path& path) {
  if (path.access().groups.empty()) {
    return;
  }
  for (Path* other : paths_) {
    if (other != &path && other->lun() == path.lun() &&
        other->session().options().target_name == path.session().options().target_name &&
        other->take_port_groups(path.access())) {
      other->refresh_access();
    }
  }
}

void MultipathDevice::Impl::update_priorities() {
  bool changed = false;
  for (Path* path : paths_) {
    changed = update_priority(path->index()) || changed;
  }
  if (changed) {
    groups_.regroup();
    consider_failback(PathGroups::kNoPath);
    note_group_in_use();
    notify_.schedule();
    follow_closely();
  }
}

bool MultipathDevice::Impl::update_priority(std::uint32_t index) {
  const Path& path = paths_[index];
  const PathPlace place = place_of(path);
  PathTraits traits = groups_.traits(index);
  const int before = traits.priority;
  if (path.told_access()) {
    const auto priority = path_priority(policies_.prio, path.access(), place, path.latency());
    if (!priority) {
      // Not known: as it was; a path that must carry I/O before anything is known, with the best.
      traits.priority = std::max(before, 0);
      if (measures_latency_) {
        for (Path* other : paths_) {
          traits.priority = std::max(traits.priority, groups_.traits(other->index()).priority);
        }
      }
    } else if (measures_latency_) {
      traits.priority =
          steady_latency_priority(*path.latency().mean(), policies_.prio.base_number, before);
    } else {
      traits.priority = *priority;
    }
    traits.target_port_group.reset();
    if (const TargetPortGroup* group = path.access().group()) {
      traits.target_port_group = group->tag;
    } else {
      traits.target_port_group = path.access().port.target_port_group;
    }
    traits.serial = path.serial();
  }
  const bool by_priority = policies_.rr_weight == RrWeight::priorities &&
                           policies_.path_selector == PathSelectorKind::round_robin;
  groups_.set_weight(index, by_priority ? static_cast<std::uint32_t>(std::max(traits.priority, 0))
                                        : value_for(place, options_.path_weights, 1));
  if (traits == groups_.traits(index)) {
    return false;
  }
  groups_.set_traits(index, traits);
  return true;
}

void MultipathDevice::Impl::note_group_in_use() {
  const PathMask members = groups_.groups()[groups_.current()].members;
  if ((members & paths_.up()) == 0) {
    return;
  }
  if (group_in_use_ != 0 && (members & group_in_use_) == 0) {
    ++group_switches_;
  }
  group_in_use_ = members;
}

// After the set has been told of its state.
void MultipathDevice::Impl::regroup_after(Path& path) {
  PathMask awaited = 0;
  for (const Path* other : paths_) {
    awaited |= other->verifying() ? path_bit(other->index()) : 0;
  }
  groups_.set_states(paths_.up(), paths_.ghost(), awaited);
  const bool came_up = path.state() == PathState::up;
  if (came_up && path.take_new()) {
    // A path that the disk did not have before: as when multipathd loads a new map, the best group
    // is used whatever failback says.
    groups_.use(groups_.best());
  }
  if (!came_up && path.state() != PathState::pending) {
    failback_timer_.stop();
  }
  consider_failback(came_up ? path.index() : PathGroups::kNoPath);
  note_group_in_use();
  activation_after(path);
}

void MultipathDevice::Impl::note_failure(Path& path) {
  path.note_failure();
  if (path.marginal_until()) {
    on_marginal_timer();
  }
}

// A command has failed, for all that is known because of the path, which is up.
void MultipathDevice::Impl::note_error(Path& path) {
  if (paths_.is_leaving(path) || !PathSet::has(paths_.up(), path) ||
      (paths_.up() & ~path_bit(path.index())) == 0 || closing_) {
    return;  // there is no better one
  }
  path.note_error();
  if (path.marginal_until()) {
    on_marginal_timer();
  }
}

// Puts into the groups of last resort, and takes from them, the paths for which it is time.
void MultipathDevice::Impl::on_marginal_timer() {
  std::optional<TimePoint> next;
  bool changed = false;
  for (const Path* path : paths_) {
    const std::uint32_t index = path->index();
    const std::optional<TimePoint> until = path->marginal_until();
    if (until && (!next || *until < *next)) {
      next = until;
    }
    PathTraits traits = groups_.traits(index);
    if (traits.marginal != until.has_value()) {
      traits.marginal = until.has_value();
      groups_.set_traits(index, traits);
      changed = true;
    }
  }
  if (next) {
    marginal_timer_.start_at(*next);
  }
  if (changed) {
    groups_.regroup();
    consider_failback(PathGroups::kNoPath);
    note_group_in_use();
    notify_.schedule();
    pump_.schedule();
  }
}

// came_up: the path that has just done so, or kNoPath.
void MultipathDevice::Impl::consider_failback(std::uint32_t came_up) {
  if (groups_.groups().empty() || groups_.awaits_current()) {
    return;
  }
  const std::uint32_t best = wanted_group();
  if (best == groups_.current()) {
    failback_timer_.stop();
    return;
  }
  if (groups_.groups()[groups_.current()].marginal && !groups_.groups()[best].marginal) {
    fail_back();  // failback is about priorities; a last resort is left as soon as possible
    return;
  }
  switch (policies_.failback.kind) {
    case Failback::Kind::manual:
      return;
    case Failback::Kind::immediate:
      fail_back();
      return;
    case Failback::Kind::followover:
      if (came_up != PathGroups::kNoPath &&
          (groups_.groups()[best].members & paths_.up()) == path_bit(came_up)) {
        fail_back();
      }
      return;
    case Failback::Kind::after:
      if (came_up != PathGroups::kNoPath || !failback_timer_.armed()) {
        failback_timer_.start_after(policies_.failback.delay);
      }
      return;
  }
}

void MultipathDevice::Impl::fail_back() {
  const std::uint32_t best = wanted_group();
  if ((groups_.groups()[best].members & paths_.up()) == 0) {
    activation_for_failback_ = paths_.up() != 0;
    look_for_activation_.schedule();
    return;
  }
  if (best != groups_.current()) {
    groups_.use(best);
    note_group_in_use();
    log_.info("path group {} is used now (prio {}, failback {})", best + 1,
              groups_.groups()[best].priority, to_string(policies_.failback));
    notify_.schedule();
    pump_.schedule();
  }
}

// What the array does not say by itself is looked at as PathChecker looks at paths: less and less
// often while all is well.
void MultipathDevice::Impl::on_priority_timer() {
  follow_interval_ =
      std::max<Duration>(std::min<Duration>(follow_interval_ * 2, options_.max_polling_interval),
                         options_.polling_interval);
  start_priority_timer();
  if (measures_latency_) {
    update_priorities();
    if (reactor_.now() >= measure_at_) {
      measure_at_ = reactor_.now() + follow_interval_;
      measure_idle_paths();
    }
    return;
  }
  // The others are not used; PathChecker sees to them.
  PathMask asking = 0;
  for (const Path* path : paths_) {
    asking |=
        PathSet::has(paths_.up(), *path) && asks_for_its_group(*path) ? path_bit(path->index()) : 0;
  }
  for (Path* path : paths_) {
    if ((asking & path_bit(path->index())) != 0) {
      path->follow_access();
    }
  }
}

// Mean latencies are at hand without asking anybody.
void MultipathDevice::Impl::start_priority_timer() {
  priority_timer_.start_after(
      with_jitter(measures_latency_ ? Duration(options_.polling_interval) : follow_interval_,
                  reactor_.random()));
}

// Something has changed, and more may.
void MultipathDevice::Impl::follow_closely() {
  follow_interval_ = options_.polling_interval;
  measure_at_ = std::min(measure_at_, reactor_.now() + follow_interval_);
  if (priority_timer_.armed() && priority_timer_.deadline() > reactor_.now() + follow_interval_) {
    start_priority_timer();
  }
}

// REPORT TARGET PORT GROUPS answers for all ports of a group (share_port_groups()): one path of it
// asks, another one when that is not answered.
bool MultipathDevice::Impl::asks_for_its_group(const Path& path) const {
  const TargetPortGroup* const group = path.access().group();
  if (policies_.prio.kind != PrioritizerKind::alua || group == nullptr) {
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
void MultipathDevice::Impl::measure_idle_paths() {
  for (Path* path : paths_) {
    const std::uint32_t timed = path->take_timed_requests();
    if (timed < LatencyEstimate::kRequestsMin && !suspended() && path->state() == PathState::up &&
        !PathSet::has(paths_.suspect(), *path) &&
        path->session().state() == SessionState::logged_in && !path->measuring()) {
      path->measure();
    }
  }
}

void MultipathDevice::Impl::on_latency_measured(Path& path,
                                                const LatencyEstimate& measured) noexcept {
  look_at_those_that_end();
  if (!closing_ && measures_latency_ && !paths_.is_leaving(path)) {
    path.set_latency(measured);
    update_priorities();
  }
}

void MultipathDevice::Impl::add_group_snapshots(MultipathSnapshot& snapshot) const {
  snapshot.path_selector = fmt::format("{} 0", to_string(policies_.path_selector));
  snapshot.path_grouping_policy = to_string(policies_.path_grouping_policy);
  snapshot.prio = to_string(policies_.prio.kind);
  snapshot.hardware_handler = disk_.lun().access.tpgs != 0 ? "1 alua"
                              : disk_.lun().access.rdac    ? "1 rdac"
                                                           : "0";
  snapshot.failback = to_string(policies_.failback);
  snapshot.active_group = groups_.current();
  snapshot.group_switches = group_switches_;
  for (const PathGroup& group : groups_.groups()) {
    snapshot.groups.push_back({.priority = group.priority, .marginal = group.marginal});
  }
  std::size_t at = 0;
  for (const Path* path : paths_) {
    PathSnapshot& one = snapshot.paths[at++];
    one.priority = std::max(groups_.traits(path->index()).priority, 0);
    one.group = groups_.group_of(path->index());
  }
}

}  // namespace iscsi_blkback
