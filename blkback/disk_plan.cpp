#include "blkback/disk_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "multipath/policy_contradiction.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxDescribedTrouble = 600;

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
  if (settings.wwid) {
    multipath.wwid = settings.wwid;
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

void add_trouble(std::string& trouble, const std::string& sentence) {
  if (trouble.find(sentence) != std::string::npos || trouble.size() > kMaxDescribedTrouble) {
    return;
  }
  trouble += trouble.empty() ? sentence : "; " + sentence;
}

// The portals that lead to the target, each once, in the order of the list.
std::vector<Portal> discovered_portals(const DiskPlan& plan, PortalDirectory& directory,
                                       std::string& trouble) {
  std::vector<Portal> found;
  for (const Portal& at : plan.discovery_portals) {
    auto portals = directory.discover(at, plan.session, plan.target_name);
    if (!portals) {
      add_trouble(trouble, portals.error().message);
      continue;
    }
    for (Portal& portal : *portals) {
      if (found.size() < kMaxPortalsPerDisk &&
          std::find(found.begin(), found.end(), portal) == found.end()) {
        found.push_back(std::move(portal));
      }
    }
  }
  return found;
}

// The paths that one portal makes: through each interface, as many as there are to be sessions.
void add_paths(const PortalOptions& options, const Portal& portal, const SocketAddress& address,
               ResolvedDisk& disk) {
  std::vector<InterfaceBinding> interfaces = options.interfaces;
  if (interfaces.empty() || !portal.interface_binding.empty()) {
    interfaces = {portal.interface_binding};
  }
  std::vector<ResolvedPortal>& paths = disk.specification.portals;
  for (const InterfaceBinding& interface : interfaces) {
    for (std::uint16_t number = 0; number < options.sessions_per_portal; ++number) {
      ResolvedPortal path{portal, address, number, disk.specification.session.target_name};
      path.portal.interface_binding = interface;
      if (std::any_of(paths.begin(), paths.end(),
                      [&](const ResolvedPortal& other) { return same_path(path, other); })) {
        continue;
      }
      if (paths.size() == kMaxPathsPerDisk) {
        add_trouble(disk.trouble,
                    fmt::format("the disk has {} paths, no more are made", kMaxPathsPerDisk));
        return;
      }
      paths.push_back(std::move(path));
    }
  }
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

Result<ResolvedDisk> resolve_disk(const DiskPlan& plan, PortalDirectory& directory) {
  ResolvedDisk disk;
  disk.specification.lun = plan.lun;
  disk.specification.session = plan.session;
  disk.specification.multipath = plan.multipath;
  const bool ask = plan.portals.empty();
  const std::vector<Portal> portals =
      ask ? discovered_portals(plan, directory, disk.trouble) : plan.portals;
  if (portals.empty()) {
    add_trouble(disk.trouble, fmt::format("no discovery portal tells of {}", plan.target_name));
    return tl::unexpected(Error{ErrorCode::unavailable, disk.trouble});
  }
  for (const Portal& portal : portals) {
    auto address = directory.resolve(portal);
    if (!address) {
      add_trouble(disk.trouble, address.error().message);
      continue;
    }
    add_paths(plan.paths, portal, *address, disk);
  }
  if (disk.specification.portals.empty()) {
    return tl::unexpected(Error{ErrorCode::unavailable, disk.trouble});
  }
  return disk;
}

}  // namespace iscsi_blkback
