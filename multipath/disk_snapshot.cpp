#include "multipath/disk_snapshot.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

namespace {

PathSnapshot path_snapshot(const Path& path, const DiskParts& parts, TimePoint now) {
  const Session& session = path.session();
  const SessionOptions& options = session.options();
  const auto marginal_until = path.marginal_until();
  return {.portal = path.portal_name(),
          .address = session.portal_address().to_string(),
          .interface_name = options.interface_binding.to_string(),
          .target_name = options.target_name,
          .lun = path.lun(),
          .state = path.state(),
          .session_state = session.state(),
          .last_error = path.last_error(),
          .on_its_way = path.on_its_way() || parts.activator.concerns(path),
          .in_flight = path.in_flight(),
          .suspect = PathSet::has(parts.paths.suspect(), path),
          .requests = path.requests(),
          .failures = path.failures(),
          .marginal_for = marginal_until ? *marginal_until - now : Duration::zero(),
          .checker = to_string(parts.groups.policies().path_checker),
          .finding = path.finding(),
          .priority = std::max(parts.groups.groups().traits(path.index()).priority, 0),
          .group = parts.groups.groups().group_of(path.index()),
          .fenced_alone = parts.fence.fenced_alone(path)};
}

void add_groups(MultipathSnapshot& snapshot, const GroupController& groups) {
  const PathPolicies& policies = groups.policies();
  snapshot.path_selector = fmt::format("{} 0", to_string(policies.path_selector));
  snapshot.path_grouping_policy = to_string(policies.path_grouping_policy);
  snapshot.prio = to_string(policies.prio.kind);
  snapshot.failback = to_string(policies.failback);
  snapshot.active_group = groups.groups().current();
  snapshot.group_switches = groups.switches();
  for (const PathGroup& group : groups.groups().groups()) {
    snapshot.groups.push_back({.priority = group.priority, .marginal = group.marginal});
  }
}

// multipathd's words: "queue", "fail", "30 sec".
std::string no_path_retry_text(std::optional<std::chrono::milliseconds> wait) {
  if (!wait) {
    return "queue";
  }
  return wait->count() == 0 ? "fail"
                            : fmt::format("{} sec", std::chrono::duration<double>(*wait).count());
}

void add_lun(MultipathSnapshot& snapshot, const DiskIdentity& disk) {
  const LogicalUnitIdentity& lun = disk.lun();
  snapshot.wwid = lun.wwid;
  snapshot.vendor = lun.vendor;
  snapshot.product = lun.product;
  snapshot.revision = lun.revision;
  snapshot.hardware_handler = lun.access.tpgs != 0 ? "1 alua" : lun.access.rdac ? "1 rdac" : "0";
  snapshot.geometry = disk.geometry();
  snapshot.ready = disk.known();
}

}  // namespace

std::size_t MultipathSnapshot::paths_up() const {
  return static_cast<std::size_t>(
      std::count_if(paths.begin(), paths.end(),
                    [](const PathSnapshot& path) { return path.state == PathState::up; }));
}

MultipathSnapshot snapshot_of(const DiskParts& parts, TimePoint now) {
  MultipathSnapshot snapshot;
  snapshot.alias = parts.alias;
  add_lun(snapshot, parts.disk);
  snapshot.queueing = parts.paths.up() == 0 && parts.outages.now() != Outage::fail;
  snapshot.queued = parts.queue.queued();
  snapshot.held = parts.queue.held();
  snapshot.waits_because = parts.turn.why();
  snapshot.hedged = parts.queue.hedged();
  snapshot.waiting_for_space = parts.queue.waiting_for_space();
  snapshot.no_path_retry = no_path_retry_text(parts.outages.timer().wait());
  snapshot.portal_group_fences = to_string(parts.fence.portal_group_fences());
  snapshot.queued_time = parts.outages.timer().queued_time();
  snapshot.queue_timeouts = parts.outages.timer().timeouts();
  snapshot.in_flight = parts.removals.in_flight();
  snapshot.leaving = parts.removals.size();
  for (const Path* path : parts.paths) {
    snapshot.paths.push_back(path_snapshot(*path, parts, now));
    snapshot.in_flight += path->in_flight();
  }
  add_groups(snapshot, parts.groups);
  return snapshot;
}

}  // namespace iscsi_blkback
