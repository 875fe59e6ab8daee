#include "tools/config/config_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "multipath/attach/disk_url.h"
#include "multipath/attach/policy_contradiction.h"

namespace iscsi_blkback {
namespace {

// Points to the last of the named options that the section itself has, or to the section, and says
// where those come from that stand in other sections.
void refuse_options(const ConfigDraft& draft, std::initializer_list<std::string_view> names,
                    std::string_view sentence) {
  std::uint32_t line = 0;
  std::string elsewhere;
  for (const std::string_view name : names) {
    if (const std::uint32_t* here = draft.line_of(name)) {
      line = std::max(line, *here);
    } else if (const auto place = draft.places.find(name); place != draft.places.end()) {
      elsewhere += fmt::format("{}{} comes from line {}, {}", elsewhere.empty() ? "" : "; ", name,
                               place->second.line, place->second.section);
    }
  }
  ConfigEntry entry = draft.entry;
  entry.line = line == 0 ? draft.entry.line : line;
  entry.refuse(elsewhere.empty() ? std::string(sentence)
                                 : fmt::format("{} ({})", sentence, elsewhere));
}

// prefix: of the options' names; shown: in the sentence.
void check_chap(const ConfigDraft& draft, const ChapOptions& chap, const std::string& prefix,
                const char* shown) {
  ConfigEntry where = draft.entry;
  std::uint32_t line = 0;
  for (const char* option :
       {"authmethod", "chap_algs", "username", "password", "username_in", "password_in"}) {
    if (const std::uint32_t* here = draft.line_of(prefix + option)) {
      line = std::max(line, *here);
    }
  }
  where.line = line == 0 ? draft.entry.line : line;
  if (draft.line_of(prefix + "authmethod") != nullptr && !chap.enabled()) {
    where.refuse(fmt::format("{}: CHAP needs a username and a password", shown));
  }
  if (auto checked = check_chap_options(chap); !checked) {
    where.refuse(fmt::format("{}: {}", shown, checked.error().message));
  }
}

}  // namespace

void check_policies(ConfigDraft& draft) {
  if (draft.line_of("prio") != nullptr && draft.line_of("prio_args") == nullptr) {
    draft.prio_args.clear();  // those were for another prio
  }
  if (draft.prio) {
    auto made = make_prioritizer(*draft.prio, draft.prio_args);
    if (!made) {
      refuse_options(draft, {"prio", "prio_args"}, made.error().message);
      return;
    }
    draft.multipath.prio = std::move(*made);
  } else if (!draft.prio_args.empty()) {
    refuse_options(draft, {"prio_args"}, "prio_args needs a prio that they are for");
  }
  if (const auto found = find_contradiction(draft.multipath)) {
    refuse_options(draft, {found->settings[0], found->settings[1]}, found->sentence);
  }
}

void check_device(ConfigDraft device, const ConfigDraft& defaults) {
  MultipathOptions together = defaults.multipath;
  PathPolicySettings& policies = together;
  policies = device.row.policies;
  overrule(defaults.multipath, policies);
  const auto found = find_contradiction(together);
  if (!found) {
    return;
  }
  for (const auto& [name, place] : defaults.places) {
    device.places.insert_or_assign(name, place);  // [defaults] overrules
  }
  refuse_options(device, {found->settings[0], found->settings[1]}, found->sentence);
}

void decide_no_path_retry(ConfigDraft& draft) {
  if (!draft.no_path_retry.empty()) {
    draft.multipath.no_path_retry =
        parse_no_path_retry(draft.no_path_retry, draft.multipath.polling_interval)
            .value_or(std::nullopt);
  }
}

void check_section(ConfigDraft& draft) {
  const SessionOptions& session = draft.session;
  const MultipathOptions& multipath = draft.multipath;
  for (const char* part : {"iface.net_ifacename", "iface.ipaddress", "iface.hwaddress"}) {
    if (draft.line_of("interfaces") != nullptr && draft.line_of(part) != nullptr) {
      refuse_options(draft, {"interfaces", part},
                     fmt::format("either interfaces or {} may be set, not both", part));
    }
  }
  if (!draft.chap_off) {
    check_chap(draft, session.chap, "", "node.session.auth");
  }
  if (!draft.discovery_chap_off) {
    check_chap(draft, session.discovery_chap, "discovery.sendtargets.auth.",
               "discovery.sendtargets.auth");
  }
  check_policies(draft);
  if (session.first_burst_length > session.max_burst_length) {
    refuse_options(draft, {"FirstBurstLength", "MaxBurstLength"},
                   fmt::format("FirstBurstLength ({}) must not be greater than MaxBurstLength ({}) "
                               "(RFC 7143 13.14)",
                               session.first_burst_length, session.max_burst_length));
  }
  const auto check_times = [&](const char* one, std::chrono::milliseconds time, const char* must,
                               const char* other, std::chrono::milliseconds than, bool right,
                               const char* because = "") {
    if (!right) {
      refuse_options(draft, {one, other},
                     fmt::format("{} ({} s) must {} {} ({} s){}", one, in_seconds(time), must,
                                 other, in_seconds(than), because));
    }
  };
  const auto ordered = [&](const char* one, std::chrono::milliseconds time, const char* other,
                           std::chrono::milliseconds than) {
    check_times(one, time, "not be longer than", other, than, time <= than);
  };
  ordered("relogin_backoff_min", session.relogin_backoff_min, "relogin_backoff_max",
          session.relogin_backoff_max);
  ordered("connect_timeout", session.connect_timeout, "login_timeout", session.login_timeout);
  ordered("stall_probe", session.stall_probe, "path_timeout", session.path_timeout);
  // The defaults of these two follow the other one.
  if (draft.places.contains("max_polling_interval")) {
    check_times("max_polling_interval", multipath.max_polling_interval, "not be shorter than",
                "polling_interval", multipath.polling_interval,
                multipath.max_polling_interval >= multipath.polling_interval);
  }
  if (draft.places.contains("fence_settle_time")) {
    check_times("fence_settle_time", multipath.fence_settle_time, "be shorter than", "quiesce_time",
                multipath.quiesce_time, multipath.fence_settle_time < multipath.quiesce_time,
                ", after which no fence is needed");
  }
  decide_no_path_retry(draft);
}

}  // namespace iscsi_blkback
