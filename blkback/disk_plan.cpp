#include "blkback/disk_plan.h"

#include <fmt/format.h>

#include "multipath/policy_contradiction.h"

namespace iscsi_blkback {
namespace {

void apply(const DiskSettings& settings, SessionOptions& session, MultipathOptions& multipath) {
  if (settings.path_grouping_policy) {
    multipath.path_grouping_policy = *settings.path_grouping_policy;
  }
  if (settings.path_selector) {
    multipath.path_selector = *settings.path_selector;
  }
  if (settings.rr_min_io) {
    multipath.rr_min_io = *settings.rr_min_io;
  }
  if (settings.prio) {
    multipath.prio = *settings.prio;
  }
  if (settings.failback) {
    multipath.failback = *settings.failback;
  }
  if (settings.polling_interval) {
    multipath.polling_interval = *settings.polling_interval;
  }
  if (settings.checker_timeout) {
    multipath.checker_timeout = *settings.checker_timeout;
  }
  if (!settings.no_path_retry.empty()) {
    multipath.no_path_retry =
        parse_no_path_retry(settings.no_path_retry, multipath.polling_interval).value();
  }
  if (settings.login_timeout) {
    session.login_timeout = *settings.login_timeout;
  }
  if (settings.logout_timeout) {
    session.logout_timeout = *settings.logout_timeout;
  }
  if (settings.noop_out_interval) {
    session.noop_out_interval = *settings.noop_out_interval;
  }
  if (settings.noop_out_timeout) {
    session.noop_out_timeout = *settings.noop_out_timeout;
  }
}

bool sets(const DiskSettings& settings, std::string_view name) {
  return (name == "path_grouping_policy" && settings.path_grouping_policy.has_value()) ||
         (name == "prio" && settings.prio.has_value()) ||
         (name == "path_selector" && settings.path_selector.has_value());
}

// What is behind '?' against what the configuration file says, which has been checked by itself.
Result<void> check_together(const DiskSettings& settings, const MultipathOptions& multipath) {
  const auto found = find_contradiction(multipath);
  if (!found) {
    return {};
  }
  const auto place = [&](std::string_view name) {
    return sets(settings, name) ? "the disk's target" : "the configuration file";
  };
  return fail(
      ErrorCode::invalid_argument,
      fmt::format("{} ({} comes from {}, {} from {})", found->sentence, found->settings[0],
                  place(found->settings[0]), found->settings[1], place(found->settings[1])));
}

}  // namespace

bool same_path(const ResolvedPortal& one, const ResolvedPortal& other) {
  return one.address == other.address &&
         one.portal.interface_binding == other.portal.interface_binding &&
         one.session_number == other.session_number && one.target_name == other.target_name;
}

Result<DiskPlan> plan_disk(const DiskTarget& target, const Configuration& configuration,
                           const std::string& name, bool read_only) {
  DiskPlan plan;
  plan.session = configuration.session;
  plan.multipath = configuration.multipath;
  plan.paths = configuration.paths;
  plan.multipath.alias = name;
  plan.target_name = target.target_name;
  plan.lun = target.lun;
  plan.portals = target.portals;

  const ConfiguredLun* configured = nullptr;
  if (!target.alias.empty()) {
    const auto found = configuration.luns.find(target.alias);
    if (found == configuration.luns.end()) {
      return tl::unexpected(Error{
          ErrorCode::not_found,
          fmt::format("the configuration file names no LUN with the alias {}", target.alias)});
    }
    configured = &found->second;
  } else {
    // A LUN that the configuration names keeps its alias and settings however the disk line says
    // it.
    for (const auto& [alias, lun] : configuration.luns) {
      if (lun.target_name == target.target_name && lun.lun == target.lun) {
        configured = &lun;
        break;
      }
    }
  }
  if (const auto whole = configuration.targets.find(target.target_name);
      configured == nullptr && whole != configuration.targets.end()) {
    plan.session = whole->second.session;
    plan.multipath = whole->second.multipath;
    plan.multipath.alias = name;
    plan.paths = whole->second.paths;
  }
  if (configured != nullptr) {
    plan.session = configured->session;
    plan.multipath = configured->multipath;
    plan.paths = configured->paths;
    plan.multipath.alias = configured->alias;
    plan.target_name = configured->target_name;
    plan.lun = configured->lun;
    if (plan.portals.empty()) {
      plan.portals = configured->portals;
    }
  }
  apply(target.settings, plan.session, plan.multipath);
  if (auto checked = check_together(target.settings, plan.multipath); !checked) {
    return tl::unexpected(checked.error());
  }
  settle_selector(plan.multipath);
  plan.session.target_name = plan.target_name;
  if (plan.session.initiator_name.empty()) {
    plan.session.initiator_name = configuration.initiator_name;
  }
  plan.multipath.read_only = plan.multipath.read_only || read_only;
  if (plan.portals.empty()) {
    plan.discovery_portals = configuration.discovery_portals;
    if (plan.discovery_portals.empty()) {
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("no portal is known for {}: name portals in the disk's target or in the "
                      "configuration file",
                      plan.target_name));
    }
  }
  return plan;
}

}  // namespace iscsi_blkback
