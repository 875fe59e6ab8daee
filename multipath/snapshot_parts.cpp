#include "multipath/snapshot_parts.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

std::size_t MultipathSnapshot::paths_up() const {
  return static_cast<std::size_t>(
      std::count_if(paths.begin(), paths.end(),
                    [](const PathSnapshot& path) { return path.state == PathState::up; }));
}

PathSnapshot snapshot_of(const Path& path, const PathSet& paths, const GroupController& groups,
                         TimePoint now) {
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
          .on_its_way = path.on_its_way(),
          .in_flight = path.in_flight(),
          .suspect = PathSet::has(paths.suspect(), path),
          .requests = path.requests(),
          .failures = path.failures(),
          .marginal_for = marginal_until ? *marginal_until - now : Duration::zero(),
          .checker = to_string(groups.policies().path_checker),
          .finding = path.finding(),
          .priority = std::max(groups.groups().traits(path.index()).priority, 0),
          .group = groups.groups().group_of(path.index())};
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

std::string no_path_retry_text(std::optional<std::chrono::milliseconds> wait) {
  if (!wait) {
    return "queue";
  }
  return wait->count() == 0 ? "fail"
                            : fmt::format("{} sec", std::chrono::duration<double>(*wait).count());
}

}  // namespace iscsi_blkback
