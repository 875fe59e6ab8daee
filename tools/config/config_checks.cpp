#include "tools/config/config_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <utility>

#include "base/ascii_case.h"
#include "multipath/attach/policy_contradiction.h"

namespace iscsi_blkback {
namespace {

using Names = std::initializer_list<std::string_view>;

// The last of the named options that the section itself has, or the section. prefix: of the names.
ConfigEntry last_of(const ConfigDraft& draft, Names names, const std::string& prefix = {}) {
  ConfigEntry entry = draft.entry;
  std::uint32_t line = 0;
  for (const std::string_view name : names) {
    if (const std::uint32_t* here = draft.line_of(prefix + std::string(name))) {
      line = std::max(line, *here);
    }
  }
  entry.line = line == 0 ? entry.line : line;
  return entry;
}

// Says where those options come from that stand in other sections, too.
void refuse_options(const ConfigDraft& draft, Names names, const std::string& sentence) {
  std::string elsewhere;
  for (const std::string_view name : names) {
    const auto place = draft.written.find(name);
    if (place != draft.written.end() && draft.line_of(name) == nullptr) {
      elsewhere += fmt::format("{}{} comes from line {}, {}", elsewhere.empty() ? " (" : "; ", name,
                               place->second.line, place->second.section);
    }
  }
  last_of(draft, names).refuse(sentence + elsewhere + (elsewhere.empty() ? "" : ")"));
}

// prefix: of the options' names; shown: in the sentence.
void check_chap(const ConfigDraft& draft, const ChapOptions& chap, const std::string& prefix,
                const char* shown) {
  const ConfigEntry where = last_of(
      draft, {"authmethod", "chap_algs", "username", "password", "username_in", "password_in"},
      prefix);
  if (draft.line_of(prefix + "authmethod") != nullptr && !chap.enabled()) {
    where.refuse("{}: CHAP needs a username and a password", shown);
  }
  if (auto checked = check_chap_options(chap); !checked) {
    where.refuse("{}: {}", shown, checked.error().message);
  }
}

// Of two numbers.
struct Order {
  const char* words;
  bool (*holds)(std::int64_t one, std::int64_t other);
};
constexpr bool not_above(std::int64_t one, std::int64_t other) {
  return one <= other;
}
constexpr Order kNotGreater{"not be greater than", not_above};
constexpr Order kNotLonger{"not be longer than", not_above};
constexpr Order kNotShorter{"not be shorter than",
                            [](std::int64_t one, std::int64_t other) { return one >= other; }};
constexpr Order kShorter{"be shorter than",
                         [](std::int64_t one, std::int64_t other) { return one < other; }};

// "ONE (2 s) must not be longer than OTHER (1 s)BECAUSE".
struct OrderRule {
  std::string_view one;
  Order must;
  std::string_view other;
  const char* because = "";
  bool follows = false;  // where one is not set, it follows the other
};
constexpr OrderRule kOrderRules[] = {
    {"FirstBurstLength", kNotGreater, "MaxBurstLength", " (RFC 7143 13.14)"},
    {"relogin_backoff_min", kNotLonger, "relogin_backoff_max"},
    {"connect_timeout", kNotLonger, "login_timeout"},
    {"stall_probe", kNotLonger, "path_timeout"},
    {"max_polling_interval", kNotShorter, "polling_interval", "", true},
    {"fence_settle_time", kShorter, "quiesce_time", ", after which no fence is needed", true},
};

void check_order(const OrderRule& rule, ConfigDraft& draft) {
  const auto number = [&](std::string_view name) {
    return *find_option(name, kOfDisks)->number_in(draft);
  };
  const auto shown = [&](std::string_view name) {
    const ConfigOption& option = *find_option(name, kOfDisks);
    return option.shown(number(name)) + (option.kind == ConfigOption::Kind::seconds ? " s" : "");
  };
  const bool counts = !rule.follows || draft.written.contains(rule.one);
  if (counts && !rule.must.holds(number(rule.one), number(rule.other))) {
    refuse_options(draft, {rule.one, rule.other},
                   fmt::format("{} ({}) must {} {} ({}){}", rule.one, shown(rule.one),
                               rule.must.words, rule.other, shown(rule.other), rule.because));
  }
}

// "yes in line 4", "30 in line 2 of [defaults]", "line 4" of a text, "no, not set".
std::string said_of(const ConfigOption& option, ConfigDraft& draft) {
  const std::optional<std::int64_t> number =
      option.number_in != nullptr ? option.number_in(draft) : std::nullopt;
  const std::string value = number ? option.shown(*number) : std::string();
  const auto place = draft.written.find(option.name);
  if (place == draft.written.end()) {
    return value + (value.empty() ? "" : ", ") + "not set";
  }
  return fmt::format("{}{}line {}{}{}", value, value.empty() ? "" : " in ", place->second.line,
                     place->second.section == draft.section ? "" : " of ",
                     place->second.section == draft.section ? "" : place->second.section);
}

// An option of the later section is where the sentence points to, if it has it.
void refuse_difference(ConfigDraft& first, ConfigDraft& later) {
  for (const ConfigOption& option : config_options()) {
    if ((option.sections & later.sections) != 0 && option.same != nullptr &&
        !option.same(first, later)) {
      last_of(later, {option.name})
          .refuse(
              "luns.{0} and luns.{1} (line {2}) are one LUN, {3} of {4}, and {5} is not the same "
              "(luns.{1}: {6}; luns.{0}: {7}): say the same in both, or remove one of them",
              later.alias, first.alias, first.entry.line, later.lun, later.target_name, option.name,
              said_of(option, first), said_of(option, later));
    }
  }
}

}  // namespace

void check_aliases(std::vector<ConfigDraft>& luns) {
  std::map<std::pair<std::string, std::uint16_t>, ConfigDraft*> known;  // by a name and the number
  for (ConfigDraft& lun : luns) {
    for (const std::string& name : target_names(lun)) {
      ConfigDraft* const first = known.emplace(std::pair(lower(name), lun.lun), &lun).first->second;
      if (first != &lun) {
        refuse_difference(*first, lun);
      }
    }
  }
}

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
  for (const auto& [name, place] : defaults.written) {
    device.written.insert_or_assign(name, place);  // [defaults] overrules
  }
  refuse_options(device, {found->settings[0], found->settings[1]}, found->sentence);
}

void decide_no_path_retry(ConfigDraft& draft) {
  if (draft.no_path_retry) {
    draft.multipath.no_path_retry = draft.no_path_retry->with(draft.multipath.polling_interval);
  }
}

void check_section(ConfigDraft& draft) {
  for (const char* part : {"iface.net_ifacename", "iface.ipaddress", "iface.hwaddress"}) {
    if (draft.line_of("interfaces") != nullptr && draft.line_of(part) != nullptr) {
      refuse_options(draft, {"interfaces", part},
                     fmt::format("either interfaces or {} may be set, not both", part));
    }
  }
  if (!draft.chap_off) {
    check_chap(draft, draft.session.chap, "", "node.session.auth");
  }
  if (!draft.discovery_chap_off) {
    check_chap(draft, draft.session.discovery_chap, "discovery.sendtargets.auth.",
               "discovery.sendtargets.auth");
  }
  check_policies(draft);
  for (const OrderRule& rule : kOrderRules) {
    check_order(rule, draft);
  }
  decide_no_path_retry(draft);
}

}  // namespace iscsi_blkback
