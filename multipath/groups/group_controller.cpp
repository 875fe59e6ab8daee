#include "multipath/groups/group_controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "multipath/groups/choose_path.h"

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

GroupController::GroupController(Reactor& reactor, Options options, const PathSet& paths,
                                 DiskSteps& steps, DiskLog& log, Owner& owner)
    : reactor_(reactor),
      paths_(paths),
      steps_(steps),
      log_(log),
      owner_(owner),
      arrays_(std::move(options.arrays)),
      path_weights_(std::move(options.path_weights)),
      settings_(std::move(options.settings)),
      policies_(decide_policies(settings_, nullptr, nullptr)),
      groups_(paths.loads(), policies_.path_grouping_policy, policies_.path_selector,
              policies_.rr_min_io),
      priority_poll_(reactor, options.polling_interval, options.max_polling_interval, paths, *this),
      failback_timer_(
          reactor, [](void* self) noexcept { static_cast<GroupController*>(self)->fail_back(); },
          this),
      marginal_timer_(
          reactor,
          [](void* self) noexcept { static_cast<GroupController*>(self)->update_marginal(); },
          this) {}

SerialNumberIs GroupController::serial_number_is(const LogicalUnitIdentity& identity,
                                                 bool known) const {
  const PathGroupingPolicy grouping =
      known ? policies_.path_grouping_policy
            : decide_policies(settings_, arrays_.get(), &identity).path_grouping_policy;
  return grouping == PathGroupingPolicy::group_by_serial ? SerialNumberIs::the_paths
                                                         : SerialNumberIs::the_luns;
}

void GroupController::overrule(const PathPolicySettings& changes) {
  iscsi_blkback::overrule(changes, settings_);
}

PathPolicies GroupController::decide(const LogicalUnitIdentity* identity) {
  PathPolicies before =
      std::exchange(policies_, decide_policies(settings_, arrays_.get(), identity));
  measures_latency_ = policies_.prio.kind == PrioritizerKind::path_latency;
  priority_poll_.set_prioritizer(policies_.prio.kind);
  groups_.set_policy(policies_.path_grouping_policy);
  if (policies_.path_selector != before.path_selector || policies_.rr_min_io != before.rr_min_io) {
    groups_.set_selector(policies_.path_selector, policies_.rr_min_io, reactor_.now());
  }
  if (policies_.path_checker != before.path_checker) {
    for (Path* const path : paths_) {
      path->set_checker(policies_.path_checker);
    }
  }
  return before;
}

void GroupController::follow(const PathPolicies& before) {
  const bool regrouped = policies_.path_grouping_policy != before.path_grouping_policy ||
                         !(policies_.prio == before.prio);
  if (regrouped && !groups_.groups().empty()) {
    // As when multipathd loads a map anew: other groups, of which the best is used.
    groups_.use(groups_.best());
    note_group_in_use();
  }
  reconsider();
  priority_poll_.start();
}

void GroupController::retire_path(const Path& path) {
  group_in_use_ &= ~path_bit(path.index());
  groups_.retire_path(path.index());
}

void GroupController::close() {
  closed_ = true;
  priority_poll_.stop();
  failback_timer_.stop();
  marginal_timer_.stop();
}

std::uint32_t GroupController::wanted_group() const {
  const PathMask usable = paths_.up() | owner_.activatable();
  for (std::uint32_t group = 0; group < groups_.groups().size(); ++group) {
    if ((groups_.groups()[group].members & usable) != 0) {
      return group;
    }
  }
  return groups_.current();
}

GroupController::Choice GroupController::choose(const Wanted& wanted) {
  const TimePoint now = times_requests() ? reactor_.now() : TimePoint{};
  const PathsNow paths{.up = paths_.up(), .answering = paths_.answering(), .able = paths_.able()};
  const std::uint32_t index = choose_path(
      groups_, wanted, paths, now, [this](std::uint32_t path) { return paths_[path].able(); });
  return index == PathGroups::kNoPath ? Choice{} : Choice{&paths_[index], now};
}

void GroupController::note_time(Path& path, TimePoint chosen_at, bool success) {
  const TimePoint now = reactor_.now();
  if (groups_.timed()) {
    groups_.on_ended(path.index(), chosen_at, now);
  }
  if (measures_latency_ && success && chosen_at != TimePoint{}) {
    path.add_latency(now - chosen_at);
  }
}

void GroupController::on_access(const Path& path) {
  share_port_groups(path);
  update_priorities();
}

// What one port tells of the target's port groups holds for its other ports, and is known of all at
// the same time, so that two sides that change roles are never in one group.
void GroupController::share_port_groups(const Path& path) {
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

void GroupController::update_priorities() {
  bool changed = false;
  for (Path* path : paths_) {
    changed = update_priority(*path) || changed;
  }
  if (changed) {
    groups_.regroup();
    reconsider();
    note_group_in_use();
    steps_.due(DiskStep::tell);
    priority_poll_.follow_closely();
  }
}

bool GroupController::update_priority(const Path& path) {
  const std::uint32_t index = path.index();
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
                                        : value_for(place, path_weights_, 1));
  if (traits == groups_.traits(index)) {
    return false;
  }
  groups_.set_traits(index, traits);
  return true;
}

void GroupController::note_group_in_use() {
  const PathMask members = groups_.groups()[groups_.current()].members;
  if ((members & paths_.up()) == 0) {
    return;
  }
  if (group_in_use_ != 0 && (members & group_in_use_) == 0) {
    ++switches_;
  }
  group_in_use_ = members;
}

void GroupController::on_state(std::uint32_t index, PathState state) {
  PathMask awaited = 0;
  for (const Path* other : paths_) {
    awaited |= other->verifying() ? path_bit(other->index()) : 0;
  }
  groups_.set_states(paths_.up(), paths_.ghost(), awaited);
  const bool came_up = state == PathState::up;
  if (came_up && paths_[index].take_new()) {
    // A path that the disk did not have before: as when multipathd loads a new map, the best group
    // is used whatever failback says.
    groups_.use(groups_.best());
  }
  if (!came_up && state != PathState::pending) {
    failback_timer_.stop();
  }
  consider_failback(came_up ? index : PathGroups::kNoPath);
  note_group_in_use();
}

void GroupController::note_failure(Path& path) {
  if (closed_) {
    return;
  }
  path.note_failure();
  if (path.marginal_until()) {
    update_marginal();
  }
}

// A command has failed, for all that is known because of the path, which is up.
void GroupController::note_error(Path& path) {
  if (paths_.is_leaving(path) || !PathSet::has(paths_.up(), path) ||
      (paths_.up() & ~path_bit(path.index())) == 0 || closed_) {
    return;  // there is no better one
  }
  path.note_error();
  if (path.marginal_until()) {
    update_marginal();
  }
}

// Puts into the groups of last resort, and takes from them, the paths for which it is time.
void GroupController::update_marginal() {
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
    reconsider();
    note_group_in_use();
    steps_.due(DiskStep::tell);
    steps_.due(DiskStep::pump);
  }
}

// came_up: the path that has just done so, or kNoPath.
void GroupController::consider_failback(std::uint32_t came_up) {
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

void GroupController::fail_back() {
  const std::uint32_t best = wanted_group();
  if (!is_up(best)) {
    owner_.on_activation_wanted();
    return;
  }
  if (best != groups_.current()) {
    groups_.use(best);
    note_group_in_use();
    log_.info("path group {} is used now (prio {}, failback {})", best + 1,
              groups_.groups()[best].priority, to_string(policies_.failback));
    steps_.due(DiskStep::tell);
    steps_.due(DiskStep::pump);
  }
}

void GroupController::on_latency_measured(Path& path, const LatencyEstimate& measured) {
  if (!closed_ && measures_latency_ && !paths_.is_leaving(path)) {
    path.set_latency(measured);
    update_priorities();
  }
}

}  // namespace iscsi_blkback
