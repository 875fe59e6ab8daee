#include "multipath/attach/policy_contradiction.h"
#include "tools/config/config_reader_impl.h"

namespace iscsi_blkback {

Result<void> ConfigurationReader::check_chap(std::string_view prefix, ChapMember chap,
                                             Settings& settings,
                                             const ConfigurationEntry& section) const {
  const ChapOptions& options = settings.session.*chap;
  // Points to the last option of the section that has to do with it.
  ConfigurationEntry where = section;
  bool demanded = false;
  std::uint32_t line = 0;
  for (const Setting& setting : all_settings()) {
    const auto found = settings.lines.find(setting.name);
    if (found == settings.lines.end()) {
      continue;
    }
    const bool related = std::visit(
        [&](const auto& kind) {
          if constexpr (requires { kind.chap; }) {
            return kind.chap == chap;
          }
          return false;
        },
        setting.kind);
    if (related) {
      line = std::max(line, found->second);
      demanded = demanded || std::holds_alternative<AuthMethodSetting>(setting.kind);
    }
  }
  where.line = line == 0 ? section.line : line;
  if (settings.off(chap)) {
    return {};
  }
  if (demanded && !options.enabled()) {
    return refuse(where, fmt::format("{}: CHAP needs a username and a password", prefix));
  }
  if (auto checked = check_chap_options(options); !checked) {
    return refuse(where, fmt::format("{}: {}", prefix, checked.error().message));
  }
  return {};
}

tl::unexpected<Error> ConfigurationReader::refuse_settings(
    const ConfigurationEntry& section, const Settings& settings,
    std::initializer_list<std::string_view> names, std::string_view sentence) const {
  ConfigurationEntry entry = section;
  std::uint32_t line = 0;
  std::string elsewhere;
  for (const std::string_view name : names) {
    if (const auto here = settings.lines.find(name); here != settings.lines.end()) {
      line = std::max(line, here->second);
    } else if (const auto place = settings.places.find(name); place != settings.places.end()) {
      elsewhere += fmt::format("{}{} comes from line {}, {}", elsewhere.empty() ? "" : "; ", name,
                               place->second.line, place->second.section);
    }
  }
  entry.line = line == 0 ? section.line : line;
  return refuse(entry, elsewhere.empty() ? std::string(sentence)
                                         : fmt::format("{} ({})", sentence, elsewhere));
}

Result<void> ConfigurationReader::check_policies(const ConfigurationEntry& section,
                                                 Settings& settings) const {
  if (settings.lines.contains("prio") && !settings.lines.contains("prio_args")) {
    settings.prio_args.clear();  // those were for another prio
  }
  MultipathOptions& multipath = settings.multipath;
  if (settings.prio) {
    auto made = make_prioritizer(*settings.prio, settings.prio_args);
    if (!made) {
      return refuse_settings(section, settings, {"prio", "prio_args"}, made.error().message);
    }
    multipath.prio = std::move(*made);
  } else if (!settings.prio_args.empty()) {
    return refuse_settings(section, settings, {"prio_args"},
                           "prio_args needs a prio that they are for");
  }
  if (const auto found = find_contradiction(multipath)) {
    return refuse_settings(section, settings, {found->settings[0], found->settings[1]},
                           found->sentence);
  }
  return {};
}

// What [defaults] and a [[device]] section come to where nothing else is said of a disk.
Result<void> ConfigurationReader::check_device(const DeviceSection& device,
                                               const Settings& defaults) const {
  MultipathOptions together = defaults.multipath;
  PathPolicySettings& policies = together;
  policies = device.row.policies;
  overrule(defaults.multipath, policies);
  const auto found = find_contradiction(together);
  if (!found) {
    return {};
  }
  Settings settings = device.settings;
  for (const auto& [name, place] : defaults.places) {
    settings.lines.erase(name);  // [defaults] overrules
    settings.places.insert_or_assign(name, place);
  }
  return refuse_settings(device.entry, settings, {found->settings[0], found->settings[1]},
                         found->sentence);
}

// A number of checks counts the polling_interval of the section.
void ConfigurationReader::decide_no_path_retry(Settings& settings) {
  if (!settings.no_path_retry.empty()) {
    settings.multipath.no_path_retry =
        parse_no_path_retry(settings.no_path_retry, settings.multipath.polling_interval).value();
  }
}

// What only the whole section can tell.
Result<void> ConfigurationReader::finish(const ConfigurationEntry& section,
                                         Settings& settings) const {
  const auto refuse_pair = [&](std::string_view one, std::string_view other,
                               std::string_view sentence) {
    return refuse_settings(section, settings, {one, other}, sentence);
  };
  if (settings.lines.contains("interfaces")) {
    for (const std::string_view part :
         {"iface.net_ifacename", "iface.ipaddress", "iface.hwaddress"}) {
      if (settings.lines.contains(part)) {
        return refuse_pair("interfaces", part,
                           fmt::format("either interfaces or {} may be set, not both", part));
      }
    }
  }
  for (const auto& checked :
       {check_chap("node.session.auth", &SessionOptions::chap, settings, section),
        check_chap("discovery.sendtargets.auth", &SessionOptions::discovery_chap, settings,
                   section)}) {
    if (!checked) {
      return checked;
    }
  }
  if (auto checked = check_policies(section, settings); !checked) {
    return checked;
  }
  const SessionOptions& session = settings.session;
  if (session.first_burst_length > session.max_burst_length) {
    return refuse_pair("FirstBurstLength", "MaxBurstLength",
                       fmt::format("FirstBurstLength ({}) must not be greater than MaxBurstLength "
                                   "({}) (RFC 7143 13.14)",
                                   session.first_burst_length, session.max_burst_length));
  }
  const auto ordered = [&](std::string_view lesser, Milliseconds less, std::string_view greater,
                           Milliseconds great) -> Result<void> {
    if (less > great) {
      return refuse_pair(lesser, greater,
                         fmt::format("{} ({} s) must not be longer than {} ({} s)", lesser,
                                     in_seconds(less), greater, in_seconds(great)));
    }
    return {};
  };
  for (const auto& checked :
       {ordered("relogin_backoff_min", session.relogin_backoff_min, "relogin_backoff_max",
                session.relogin_backoff_max),
        ordered("connect_timeout", session.connect_timeout, "login_timeout", session.login_timeout),
        ordered("stall_probe", session.stall_probe, "path_timeout", session.path_timeout)}) {
    if (!checked) {
      return checked;
    }
  }
  if (settings.places.contains("max_polling_interval") &&
      settings.multipath.max_polling_interval < settings.multipath.polling_interval) {
    return refuse_pair("polling_interval", "max_polling_interval",
                       fmt::format("max_polling_interval ({} s) must not be shorter than "
                                   "polling_interval ({} s)",
                                   in_seconds(settings.multipath.max_polling_interval),
                                   in_seconds(settings.multipath.polling_interval)));
  }
  if (settings.places.contains("fence_settle_time") &&
      settings.multipath.fence_settle_time >= settings.multipath.quiesce_time) {
    return refuse_pair(
        "fence_settle_time", "quiesce_time",
        fmt::format("fence_settle_time ({} s) must be shorter than quiesce_time ({} s), "
                    "after which no fence is needed",
                    in_seconds(settings.multipath.fence_settle_time),
                    in_seconds(settings.multipath.quiesce_time)));
  }
  decide_no_path_retry(settings);
  return {};
}

}  // namespace iscsi_blkback
