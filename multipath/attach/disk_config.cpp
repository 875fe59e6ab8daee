#include "multipath/attach/disk_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "multipath/attach/session_isid.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kPlaceOfDiskLine = "the disk's target";

// What is behind '?' takes the place of what the configuration file says.
void apply(const DiskSettings& settings, DiskOptions& options) {
  const auto put = [&](const char* name, auto& option, const auto& setting) {
    if (setting) {
      option = *setting;
      options.places.insert_or_assign(name, kPlaceOfDiskLine);
    }
  };
  SessionOptions& session = options.session;
  MultipathOptions& multipath = options.multipath;
  put("path_grouping_policy", multipath.path_grouping_policy, settings.path_grouping_policy);
  put("path_selector", multipath.path_selector, settings.path_selector);
  put("rr_min_io", multipath.rr_min_io, settings.rr_min_io);
  put("prio", multipath.prio, settings.prio);
  put("failback", multipath.failback, settings.failback);
  put("polling_interval", multipath.polling_interval, settings.polling_interval);
  put("checker_timeout", multipath.checker_timeout, settings.checker_timeout);
  put("shared", multipath.shared, settings.shared);
  put("sector_size", options.sector_size, settings.sector_size);
  put("wwid", multipath.wwid, settings.wwid);
  put("login_timeout", session.login_timeout, settings.login_timeout);
  put("logout_timeout", session.logout_timeout, settings.logout_timeout);
  put("noop_out_interval", session.noop_out_interval, settings.noop_out_interval);
  put("noop_out_timeout", session.noop_out_timeout, settings.noop_out_timeout);
  if (!settings.no_path_retry.empty()) {
    multipath.no_path_retry =
        parse_no_path_retry(settings.no_path_retry).value().with(multipath.polling_interval);
  }
}

// Those of a disk line, in its order; what a portal has may be there twice.
std::vector<std::string> names_of(const DiskUrl& target) {
  std::vector<std::string> names{target.target_name};
  names.insert(names.end(), target.other_target_names.begin(), target.other_target_names.end());
  for (const Portal& portal : target.portals) {
    if (!portal.target_name.empty()) {
      names.push_back(portal.target_name);
    }
  }
  return names;
}

// A LUN that the configuration names keeps its alias and settings however the disk line says it,
// and whichever of its names come first there.
const ConfiguredLun* find_lun(const Configuration& configuration, const DiskUrl& target) {
  for (const std::string& name : names_of(target)) {
    for (const auto& [alias, lun] : configuration.luns) {
      if (lun.lun == target.lun && names_target(lun, name)) {
        return &lun;
      }
    }
  }
  return nullptr;
}

// Aliases of one LUN are alike but in where its paths lead (check_aliases() of tools/config): which
// of those paths a disk line means that has no alias, nothing would say.
Result<void> check_only_alias(const ConfiguredLun& found, const DiskUrl& target,
                              const Configuration& configuration) {
  const std::vector<std::string> names = names_of(target);
  for (const auto& each : configuration.luns) {
    const auto& alias = each.first;
    const ConfiguredLun& other = each.second;
    const bool is_meant = alias != found.alias && same_lun(found, other) &&
                          std::any_of(names.begin(), names.end(), [&](const std::string& name) {
                            return names_target(other, name);
                          });
    const bool same_portals =
        !target.portals.empty() ||
        (other.portals == found.portals && same_iscsi_name(other.target_name, found.target_name) &&
         other.other_target_names == found.other_target_names);
    if (is_meant && !(same_portals && other.paths.interfaces == found.paths.interfaces)) {
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("the configuration file has LUN {0} of {1} as {2} and as {3}, by other "
                      "portals or interfaces: write iscsi:{2} or iscsi:{3} as the target",
                      found.lun, found.target_name, found.alias, alias));
    }
  }
  return {};
}

// Names of the disk line that the configuration's LUN has not: they are asked for as well, unless
// its portals are configured, which are other names'.
Result<void> add_unknown_names(const DiskUrl& target, const ConfiguredLun& configured,
                               DiskConfig& config) {
  for (const std::string& name : names_of(target)) {
    if (name.empty() || names_target(configured, name)) {
      continue;
    }
    if (!configured.portals.empty()) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("the configuration file has portals of {}, but none for its target "
                              "name {}: name portals in the disk's target",
                              configured.alias, name));
    }
    if (config.other_target_names.size() + 1 == kMaxTargetNamesPerDisk) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("{} would have more than {} target names, with those of the "
                              "configuration file",
                              configured.alias, kMaxTargetNamesPerDisk));
    }
    config.other_target_names.push_back(name);
  }
  return {};
}

}  // namespace

std::string place_of(std::string_view setting, const SettingPlaces& places) {
  const auto found = places.find(setting);
  return found != places.end() ? found->second : std::string("the configuration file");
}

std::string with_places(const PolicyContradiction& contradiction, const SettingPlaces& places) {
  const auto& [one, other] = contradiction.settings;
  return fmt::format("{} ({} comes from {}, {} from {})", contradiction.sentence, one,
                     place_of(one, places), other, place_of(other, places));
}

std::string sector_size_trouble(const DiskOptions& options, std::uint32_t logical_block_bytes) {
  if (logical_block_bytes >= options.sector_size) {
    return {};
  }
  return fmt::format(
      "the LUN has logical blocks of {} bytes, and no disk of it has larger sectors: sector_size "
      "is {} (from {})",
      logical_block_bytes, options.sector_size, place_of("sector_size", options.places));
}

bool same_path(const ResolvedPortal& one, const ResolvedPortal& other) {
  const bool same_name = one.portal.host == other.portal.host &&
                         one.portal.port == other.portal.port && !one.portal.host.empty();
  return (same_name || one.address == other.address) &&
         one.portal.interface_binding == other.portal.interface_binding &&
         one.session_number == other.session_number &&
         same_iscsi_name(one.target_name, other.target_name);
}

Result<DiskConfig> configure_disk(const DiskUrl& target, const Configuration& configuration,
                                  const std::string& name, bool read_only) {
  DiskConfig config;
  config.target_name = target.target_name;
  config.other_target_names = target.other_target_names;
  config.lun = target.lun;
  config.portals = target.portals;

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
    configured = find_lun(configuration, target);
    if (configured != nullptr) {
      if (auto only = check_only_alias(*configured, target, configuration); !only) {
        return tl::unexpected(only.error());
      }
    }
  }
  const ConfiguredTarget* const whole = find_iscsi_name(
      configuration.targets, configured != nullptr ? configured->target_name : target.target_name);
  const SessionOptions& of_target = whole != nullptr ? whole->session : configuration.session;
  const DiskOptions* said = &configuration;
  if (configured != nullptr) {
    said = configured;
  } else if (whole != nullptr) {
    said = whole;
  }
  static_cast<DiskOptions&>(config) = *said;
  config.multipath.alias = configured != nullptr ? configured->alias : name;
  if (configured != nullptr) {
    config.target_name = configured->target_name;
    config.other_target_names = configured->other_target_names;
    config.lun = configured->lun;
    // Those of the disk line are the target's that it names.
    for (Portal& portal : config.portals) {
      if (portal.target_name.empty() &&
          !same_iscsi_name(target.target_name, configured->target_name)) {
        portal.target_name = target.target_name;
      }
    }
    if (config.portals.empty()) {
      if (auto added = add_unknown_names(target, *configured, config); !added) {
        return tl::unexpected(added.error());
      }
      config.portals = configured->portals;
    }
  }
  apply(target.settings, config);
  config.session_variant = session_variant(config.session, of_target);
  // The configuration file has been checked by itself.
  if (const auto found = find_contradiction(config.multipath)) {
    return fail(ErrorCode::invalid_argument, with_places(*found, config.places));
  }
  settle_selector(config.multipath);
  config.session.target_name = config.target_name;
  if (config.session.initiator_name.empty()) {
    config.session.initiator_name = configuration.initiator_name;
  }
  config.multipath.read_only = config.multipath.read_only || read_only;
  if (config.portals.empty()) {
    config.discovery_portals = configuration.discovery_portals;
    if (config.discovery_portals.empty()) {
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("no portal is known for {}: name portals in the disk's target or in the "
                      "configuration file",
                      config.target_name));
    }
  }
  return config;
}

}  // namespace iscsi_blkback
