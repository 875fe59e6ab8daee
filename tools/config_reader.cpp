#include "tools/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "blkback/disk_target.h"
#include "tools/array_table.h"
#include "tools/config.h"
#include "tools/config_settings.h"

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::array<std::string_view, 6> kTopNames = {"initiator_name", "initiator_alias",
                                                       "portals",        "log_level",
                                                       "run_directory",  "max_ring_page_order"};
constexpr std::array<std::string_view, 3> kDeviceNames = {"vendor", "product", "revision"};
constexpr std::array<std::string_view, 3> kLunNames = {"target", "lun", "portals"};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Result<std::string> alias_of(const ConfigurationEntry& entry) {
  auto value = text_of(entry);
  if (!value) {
    return value;
  }
  const bool plain = std::none_of(value->begin(), value->end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (value->empty() || value->size() > 255 || !plain) {  // RFC 7143 6.1: 255 bytes
    return refuse(entry,
                  fmt::format("{} must have 1 to 255 bytes and no control character", entry.name));
  }
  return value;
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(&file) {}

  Result<Configuration> read(const toml::table& root) const;
  Result<ArrayTable> devices(const ConfigurationEntry& entry) const;

 private:
  // Settings as they stand after a table, with where each was written.
  struct Settings {
    SessionOptions session;
    MultipathOptions multipath;
    PortalOptions paths;
    InterfaceBinding interface;  // of the options iface.*
    std::string no_path_retry = "queue";
    std::optional<PrioritizerKind> prio;
    std::vector<std::string> prio_args;
    // authmethod = "None": the credentials stay for a section that says CHAP again.
    bool chap_off = false;
    bool discovery_chap_off = false;
    std::map<std::string_view, std::uint32_t> lines;

    SessionOptions& owner_of(auto SessionOptions::*) { return session; }
    MultipathOptions& owner_of(auto MultipathOptions::*) { return multipath; }
    PathPolicySettings& owner_of(auto PathPolicySettings::*) { return multipath; }
    PortalOptions& owner_of(auto PortalOptions::*) { return paths; }
    bool& off(ChapMember chap) {
      return chap == &SessionOptions::chap ? chap_off : discovery_chap_off;
    }
    // What the sections up to here come to.
    [[nodiscard]] SessionOptions result() const {
      SessionOptions options = session;
      if (chap_off) {
        options.chap = {};
      }
      if (discovery_chap_off) {
        options.discovery_chap = {};
      }
      return options;
    }
  };

  Result<void> top(const ConfigurationEntry& entry, Configuration& configuration) const;
  Result<void> apply(const Setting& setting, const ConfigurationEntry& entry,
                     Settings& settings) const;
  Result<void> set(const SecondsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const WholeSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const YesNoSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const FixedSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const AliasSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const DigestSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const AuthMethodSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const ChapAlgorithmsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const CredentialSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const InterfaceSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const InterfacesSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const MarginalSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const WordSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const GroupingPolicySetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const SelectorSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PrioritizerSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PrioArgumentsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const FailbackSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const RrWeightSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PathWeightsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PgInitDelaySetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> check_policies(const ConfigurationEntry& section, Settings& settings) const;
  Result<ArrayRow> device(const ConfigurationEntry& entry) const;
  Result<void> set(const NoPathRetrySetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> check_chap(std::string_view prefix, ChapMember chap, Settings& settings,
                          const ConfigurationEntry& section) const;
  Result<void> finish(const ConfigurationEntry& section, Settings& settings) const;
  Result<void> defaults(const ConfigurationEntry& section, Settings& settings) const;
  Result<Settings> target(const ConfigurationEntry& entry, const Settings& defaults) const;
  Result<ConfiguredLun> lun(const ConfigurationEntry& entry, const Settings& defaults,
                            const std::map<std::string, Settings>& targets) const;

  const std::string* file_;
};

Result<void> Reader::top(const ConfigurationEntry& entry, Configuration& configuration) const {
  if (entry.name == "portals") {
    auto list = portals_of(entry);
    if (!list) {
      return tl::unexpected(list.error());
    }
    configuration.discovery_portals = std::move(*list);
    return {};
  }
  if (entry.name == "max_ring_page_order") {
    const auto order = whole_of(entry, 0, 4);
    if (!order) {
      return tl::unexpected(order.error());
    }
    configuration.max_ring_page_order = static_cast<std::uint32_t>(*order);
    return {};
  }
  auto value = text_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  if (entry.name == "initiator_name") {
    if (auto checked = check_iscsi_name("initiator_name", *value); !checked) {
      return refuse(entry, checked.error().message);
    }
    configuration.initiator_name = std::move(*value);
  } else if (entry.name == "initiator_alias") {
    auto alias = alias_of(entry);
    if (!alias) {
      return tl::unexpected(alias.error());
    }
    configuration.session.initiator_alias = std::move(*alias);
  } else if (entry.name == "log_level") {
    if (!parse_log_level(*value)) {
      return refuse(entry, "log_level must be error, warning, info or debug");
    }
    configuration.log_level = std::move(*value);
  } else {
    if (!is_run_directory(*value)) {
      return refuse(entry, fmt::format("run_directory must be an absolute path of at most {} bytes",
                                       kMaxRunDirectoryBytes));
    }
    configuration.run_directory = std::move(*value);
  }
  return {};
}

Result<void> Reader::set(const SecondsSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto value = seconds_of(entry, kind.least, kind.most);
  if (!value) {
    return tl::unexpected(value.error());
  }
  std::visit([&](auto member) { settings.owner_of(member).*member = *value; }, kind.member);
  return {};
}

Result<void> Reader::set(const WholeSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto value = whole_of(entry, kind.least, kind.most);
  if (!value) {
    return tl::unexpected(value.error());
  }
  std::visit(
      [&](auto member) {
        auto& target = settings.owner_of(member).*member;
        if constexpr (requires { target.value(); }) {
          target = static_cast<std::uint32_t>(*value);
        } else {
          target = static_cast<std::remove_reference_t<decltype(target)>>(*value);
        }
      },
      kind.member);
  return {};
}

Result<void> Reader::set(const YesNoSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto value = yes_no_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  settings.session.*kind.member = *value;
  return {};
}

Result<void> Reader::set(const FixedSetting& kind, const ConfigurationEntry& entry,
                         Settings&) const {
  bool right = false;
  if (kind.yes_no) {
    const auto value = yes_no_of(entry);
    if (!value) {
      return tl::unexpected(value.error());
    }
    right = *value == (kind.value != 0);
  } else {
    const auto* value = entry.value->as_integer();
    right = value != nullptr && value->get() == static_cast<std::int64_t>(kind.value);
  }
  if (!right) {
    const std::string only =
        kind.yes_no ? std::string(kind.value != 0 ? "Yes" : "No") : fmt::format("{}", kind.value);
    return refuse(entry, fmt::format("{} can only be {}: {}", entry.name, only, kind.because));
  }
  return {};
}

Result<void> Reader::set(const AliasSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  auto alias = alias_of(entry);
  if (!alias) {
    return tl::unexpected(alias.error());
  }
  settings.session.initiator_alias = std::move(*alias);
  return {};
}

Result<void> Reader::set(const DigestSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  constexpr std::array kOffers = {
      std::pair{std::string_view{"None"}, DigestOffer::none},
      std::pair{std::string_view{"CRC32C"}, DigestOffer::crc32c},
      std::pair{std::string_view{"CRC32C,None"}, DigestOffer::crc32c_or_none},
      std::pair{std::string_view{"None,CRC32C"}, DigestOffer::none_or_crc32c}};
  for (const auto& [text, offer] : kOffers) {
    if (*word == text) {
      settings.session.*kind.member = offer;
      return {};
    }
  }
  return refuse(entry, fmt::format("{} must be \"None\", \"CRC32C\", \"CRC32C,None\" or "
                                   "\"None,CRC32C\"",
                                   entry.name));
}

Result<void> Reader::set(const AuthMethodSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  if (*word != "None" && *word != "CHAP") {
    return refuse(entry, fmt::format("{} must be \"None\" or \"CHAP\"", entry.name));
  }
  settings.off(kind.chap) = *word == "None";
  return {};
}

Result<void> Reader::set(const ChapAlgorithmsSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto words = text_of(entry);
  if (!words) {
    return tl::unexpected(words.error());
  }
  std::vector<ChapAlgorithm> algorithms;
  std::string_view rest = *words;
  while (true) {
    const std::size_t comma = rest.find(',');
    const auto algorithm = parse_chap_algorithm(rest.substr(0, comma));
    if (!algorithm ||
        std::find(algorithms.begin(), algorithms.end(), *algorithm) != algorithms.end()) {
      return refuse(entry, fmt::format("{} must be a list of SHA3-256, SHA256, SHA1 and MD5, the "
                                       "first choice first, like \"SHA256,MD5\"",
                                       entry.name));
    }
    algorithms.push_back(*algorithm);
    if (comma == std::string_view::npos) {
      break;
    }
    rest.remove_prefix(comma + 1);
  }
  (settings.session.*kind.chap).algorithms = std::move(algorithms);
  return {};
}

Result<void> Reader::set(const CredentialSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  auto value = text_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  if (value->empty()) {
    return refuse(entry, fmt::format("{} must not be empty", entry.name));
  }
  (settings.session.*kind.chap).*kind.member = std::move(*value);
  return {};
}

Result<void> Reader::set(const InterfaceSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  InterfaceBinding part;
  if (auto done = read_interface_part(entry, kind.member, part); !done) {
    return done;
  }
  settings.interface.*kind.member = part.*kind.member;
  settings.paths.interfaces = {settings.interface};
  return {};
}

Result<void> Reader::set(const InterfacesSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  auto list = interfaces_of(entry);
  if (!list) {
    return tl::unexpected(list.error());
  }
  settings.paths.interfaces = std::move(*list);
  return {};
}

Result<void> Reader::set(const MarginalSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto time = seconds_of(entry, kind.least, std::chrono::hours(1));
  if (!time) {
    return tl::unexpected(time.error());
  }
  settings.multipath.marginal.*(kind.member) = *time;
  return {};
}

Result<void> Reader::set(const WordSetting& kind, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  if (auto done = kind.read(*word, settings.multipath); !done) {
    return refuse(entry, done.error().message);
  }
  return {};
}

Result<void> Reader::set(const GroupingPolicySetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  const auto policy = parse_path_grouping_policy(*word);
  if (!policy) {
    return refuse(entry, policy.error().message);
  }
  settings.multipath.path_grouping_policy = *policy;
  return {};
}

Result<void> Reader::set(const SelectorSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  const auto selector = parse_path_selector(*word);
  if (!selector) {
    return refuse(entry, selector.error().message);
  }
  settings.multipath.path_selector = *selector;
  return {};
}

Result<void> Reader::set(const PrioritizerSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  settings.prio = prioritizer_named(*word);
  if (!settings.prio) {
    return refuse(entry,
                  "prio is none of const, alua, rdac, emc, weightedpath, iet and path_latency");
  }
  return {};
}

Result<void> Reader::set(const PrioArgumentsSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  auto words = texts_of(entry);
  if (!words) {
    return tl::unexpected(words.error());
  }
  settings.prio_args = std::move(*words);
  return {};
}

Result<void> Reader::set(const FailbackSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  std::string word;
  if (const auto* number = entry.value->as_integer()) {
    word = fmt::format("{}", number->get());
  } else if (const auto* string = entry.value->as_string()) {
    word = string->get();
  } else {
    return refuse_type(entry, "\"immediate\", \"manual\", \"followover\" or a number of seconds");
  }
  const auto failback = parse_failback(word);
  if (!failback) {
    return refuse(entry, failback.error().message);
  }
  settings.multipath.failback = *failback;
  return {};
}

Result<void> Reader::set(const RrWeightSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  if (*word != "uniform" && *word != "priorities") {
    return refuse(entry, "rr_weight is neither uniform nor priorities");
  }
  settings.multipath.rr_weight = *word == "uniform" ? RrWeight::uniform : RrWeight::priorities;
  return {};
}

Result<void> Reader::set(const PathWeightsSetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  constexpr std::uint32_t kMaxWeight = 100;  // dm-mpath's relative_throughput
  const auto words = texts_of(entry);
  if (!words) {
    return tl::unexpected(words.error());
  }
  settings.multipath.path_weights.clear();
  for (const std::string& word : *words) {
    auto rule = parse_path_rule(word, kMaxWeight);
    if (!rule) {
      return refuse(entry, "path_weights " + rule.error().message);
    }
    settings.multipath.path_weights.push_back(std::move(*rule));
  }
  return {};
}

Result<void> Reader::set(const PgInitDelaySetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  const auto value = seconds_of(entry, Milliseconds(10), Milliseconds(60000));
  if (!value) {
    return tl::unexpected(value.error());
  }
  settings.multipath.pg_init_delay = *value;
  return {};
}

Result<void> Reader::set(const NoPathRetrySetting&, const ConfigurationEntry& entry,
                         Settings& settings) const {
  std::string word;
  if (const auto* number = entry.value->as_integer()) {
    word = fmt::format("{}", number->get());
  } else if (const auto* string = entry.value->as_string()) {
    word = string->get();
  } else {
    return refuse_type(entry, "\"queue\", \"fail\", a number of checks, or seconds like \"30s\"");
  }
  if (auto parsed = parse_no_path_retry(word, Milliseconds(1000)); !parsed) {
    return refuse(entry, parsed.error().message);
  }
  settings.no_path_retry = std::move(word);
  return {};
}

Result<void> Reader::apply(const Setting& setting, const ConfigurationEntry& entry,
                           Settings& settings) const {
  if (!settings.lines.emplace(setting.name, entry.line).second) {
    return refuse(entry, fmt::format("{} is set twice, see line {}", setting.name,
                                     settings.lines[setting.name]));
  }
  return std::visit([&](const auto& kind) { return set(kind, entry, settings); }, setting.kind);
}

Result<void> Reader::check_chap(std::string_view prefix, ChapMember chap, Settings& settings,
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
  if (chap == &SessionOptions::discovery_chap && options.enabled() &&
      std::find(options.offered().begin(), options.offered().end(), ChapAlgorithm::md5) ==
          options.offered().end()) {
    return refuse(
        where, fmt::format("{}: discovery knows MD5 only, so that chap_algs must have it", prefix));
  }
  return {};
}

Result<void> Reader::check_policies(const ConfigurationEntry& section, Settings& settings) const {
  // Points to the last of the options that the section itself has; to the section when it has none.
  const auto where = [&](std::initializer_list<std::string_view> names) {
    ConfigurationEntry entry = section;
    std::uint32_t line = 0;
    for (const std::string_view name : names) {
      if (const auto found = settings.lines.find(name); found != settings.lines.end()) {
        line = std::max(line, found->second);
      }
    }
    entry.line = line == 0 ? section.line : line;
    return entry;
  };
  if (settings.lines.contains("prio") && !settings.lines.contains("prio_args")) {
    settings.prio_args.clear();  // those were for another prio
  }
  MultipathOptions& multipath = settings.multipath;
  if (settings.prio) {
    auto made = make_prioritizer(*settings.prio, settings.prio_args);
    if (!made) {
      return refuse(where({"prio", "prio_args"}), made.error().message);
    }
    multipath.prio = std::move(*made);
  } else if (!settings.prio_args.empty()) {
    return refuse(where({"prio_args"}), "prio_args needs a prio that they are for");
  }
  if (multipath.path_grouping_policy == PathGroupingPolicy::group_by_prio && settings.prio &&
      *settings.prio == PrioritizerKind::constant) {
    return refuse(
        where({"path_grouping_policy", "prio"}),
        "path_grouping_policy group_by_prio contradicts prio const, which gives all paths "
        "the same priority: say multibus, or another prio");
  }
  const PathSelectorKind selector = multipath.path_selector.value_or(PathSelectorKind::round_robin);
  if (multipath.rr_weight == RrWeight::priorities && selector != PathSelectorKind::round_robin) {
    return refuse(where({"rr_weight", "path_selector"}),
                  fmt::format("rr_weight priorities is for path_selector round-robin, not {}",
                              to_string(selector)));
  }
  if (!multipath.path_weights.empty()) {
    if (selector != PathSelectorKind::round_robin && selector != PathSelectorKind::service_time) {
      return refuse(where({"path_weights", "path_selector"}),
                    fmt::format("path_weights is for path_selector service-time and round-robin, "
                                "not {}",
                                to_string(selector)));
    }
    if (multipath.rr_weight == RrWeight::priorities) {
      return refuse(where({"path_weights", "rr_weight"}),
                    "either path_weights or rr_weight priorities may be set, not both");
    }
  }
  return {};
}

// What only the whole section can tell.
Result<void> Reader::finish(const ConfigurationEntry& section, Settings& settings) const {
  // Points to the later of the two options; to the section when it has neither.
  const auto where = [&](std::string_view one, std::string_view other) {
    ConfigurationEntry entry = section;
    std::uint32_t line = 0;
    for (const std::string_view name : {one, other}) {
      if (const auto found = settings.lines.find(name); found != settings.lines.end()) {
        line = std::max(line, found->second);
      }
    }
    entry.line = line == 0 ? section.line : line;
    return entry;
  };
  if (settings.lines.contains("interfaces")) {
    for (const std::string_view part :
         {"iface.net_ifacename", "iface.ipaddress", "iface.hwaddress"}) {
      if (settings.lines.contains(part)) {
        return refuse(where("interfaces", part),
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
    return refuse(where("FirstBurstLength", "MaxBurstLength"),
                  fmt::format("FirstBurstLength ({}) must not be greater than MaxBurstLength ({}) "
                              "(RFC 7143 13.14)",
                              session.first_burst_length, session.max_burst_length));
  }
  const auto ordered = [&](std::string_view lesser, Milliseconds less, std::string_view greater,
                           Milliseconds great) -> Result<void> {
    if (less > great) {
      return refuse(where(lesser, greater),
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
  if (settings.lines.contains("max_polling_interval") &&
      settings.multipath.max_polling_interval < settings.multipath.polling_interval) {
    return refuse(where("polling_interval", "max_polling_interval"),
                  fmt::format("max_polling_interval ({} s) must not be shorter than "
                              "polling_interval ({} s)",
                              in_seconds(settings.multipath.max_polling_interval),
                              in_seconds(settings.multipath.polling_interval)));
  }
  settings.multipath.no_path_retry =
      parse_no_path_retry(settings.no_path_retry, settings.multipath.polling_interval).value();
  return {};
}

Result<void> Reader::defaults(const ConfigurationEntry& section, Settings& settings) const {
  for (const ConfigurationEntry& entry : entries_of(*section.value->as_table(), file_, true)) {
    const Setting* setting = find_setting(entry.name);
    if (setting == nullptr) {
      if (contains(kTopNames, entry.name)) {
        return refuse(
            entry, fmt::format("{} does not belong into a section: put it at the top of the file",
                               entry.name));
      }
      return refuse_unknown(entry, "of [defaults]", configuration_settings());
    }
    if (auto done = apply(*setting, entry, settings); !done) {
      return done;
    }
  }
  return finish(section, settings);
}

Result<Reader::Settings> Reader::target(const ConfigurationEntry& entry,
                                        const Settings& defaults) const {
  if (auto checked = check_iscsi_name("the target name", entry.name); !checked) {
    return refuse(entry, checked.error().message);
  }
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [targets.\"NAME\"]");
  }
  Settings settings = defaults;
  settings.lines.clear();
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    const Setting* setting = find_setting(inner.name);
    if (setting == nullptr) {
      return refuse_unknown(inner, "of a target", configuration_settings());
    }
    if (auto done = apply(*setting, inner, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (auto done = finish(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  return settings;
}

Result<ConfiguredLun> Reader::lun(const ConfigurationEntry& entry, const Settings& defaults,
                                  const std::map<std::string, Settings>& targets) const {
  if (!is_alias(entry.name)) {
    return refuse(entry,
                  "a LUN's alias must have 1 to 64 letters, digits, dots, dashes and underscores, "
                  "and not begin like an iSCSI name");
  }
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [luns.ALIAS]");
  }
  ConfiguredLun result;
  result.alias = entry.name;
  // The options of its target come first, wherever its name stands in the section.
  Settings settings = defaults;
  if (const auto* name = table->get_as<std::string>("target")) {
    if (const auto whole = targets.find(name->get()); whole != targets.end()) {
      settings = whole->second;
    }
  }
  settings.lines.clear();
  bool has_lun = false;
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    if (inner.name == "target") {
      auto name = text_of(inner);
      if (!name) {
        return tl::unexpected(name.error());
      }
      if (auto checked = check_iscsi_name("target", *name); !checked) {
        return refuse(inner, checked.error().message);
      }
      result.target_name = std::move(*name);
    } else if (inner.name == "lun") {
      const auto number = whole_of(inner, 0, kMaxLun);
      if (!number) {
        return tl::unexpected(number.error());
      }
      result.lun = static_cast<std::uint16_t>(*number);
      has_lun = true;
    } else if (inner.name == "portals") {
      auto list = portals_of(inner);
      if (!list) {
        return tl::unexpected(list.error());
      }
      result.portals = std::move(*list);
    } else if (const Setting* setting = find_setting(inner.name)) {
      if (auto done = apply(*setting, inner, settings); !done) {
        return tl::unexpected(done.error());
      }
    } else {
      auto known = configuration_settings();
      known.insert(known.end(), kLunNames.begin(), kLunNames.end());
      return refuse_unknown(inner, "of a LUN", known);
    }
  }
  if (result.target_name.empty()) {
    return refuse(entry, fmt::format("luns.{} has no target = \"iqn...\"", entry.name));
  }
  if (!has_lun) {
    return refuse(entry, fmt::format("luns.{} has no lun = NUMBER", entry.name));
  }
  if (auto done = finish(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  result.session = settings.result();
  result.multipath = settings.multipath;
  result.paths = settings.paths;
  result.multipath.alias = result.alias;
  return result;
}

Result<ArrayRow> Reader::device(const ConfigurationEntry& entry) const {
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [[device]]");
  }
  ArrayRow row;
  Settings settings;
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    std::string* const pattern = inner.name == "vendor"     ? &row.vendor
                                 : inner.name == "product"  ? &row.product
                                 : inner.name == "revision" ? &row.revision
                                                            : nullptr;
    if (pattern != nullptr) {
      auto value = text_of(inner);
      if (!value) {
        return tl::unexpected(value.error());
      }
      *pattern = std::move(*value);
      continue;
    }
    const Setting* setting = find_setting(inner.name);
    if (setting == nullptr || !setting->of_device) {
      std::vector<std::string_view> known(kDeviceNames.begin(), kDeviceNames.end());
      for (const Setting& candidate : all_settings()) {
        if (candidate.of_device) {
          known.push_back(candidate.name);
        }
      }
      return refuse_unknown(inner, "of a device", known);
    }
    if (auto done = apply(*setting, inner, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (row.vendor.empty() && row.product.empty()) {
    return refuse(entry, "a device needs a vendor or a product");
  }
  if (auto done = check_policies(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  row.policies = settings.multipath;
  return row;
}

Result<ArrayTable> Reader::devices(const ConfigurationEntry& entry) const {
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    return refuse_type(entry, "sections [[device]]");
  }
  ArrayTable table;
  for (const toml::node& node : *array) {
    auto row = device({entry.file, entry.name, node.source().begin.line, &node});
    if (!row) {
      return tl::unexpected(row.error());
    }
    table.push_back(std::move(*row));
  }
  return table;
}

Result<Configuration> Reader::read(const toml::table& root) const {
  Configuration configuration;
  ConfigurationEntry default_section;
  ConfigurationEntry luns;
  ConfigurationEntry targets;
  const auto arrays = std::make_shared<ArrayTable>(built_in_arrays());
  for (const ConfigurationEntry& entry : entries_of(root, file_)) {
    if (entry.name == "device") {
      auto rows = devices(entry);
      if (!rows) {
        return tl::unexpected(rows.error());
      }
      arrays->insert(arrays->end(), std::make_move_iterator(rows->begin()),
                     std::make_move_iterator(rows->end()));
    } else if (entry.name == "defaults" || entry.name == "targets" || entry.name == "luns") {
      const bool is_luns = entry.name == "luns";
      const bool is_targets = entry.name == "targets";
      if (!entry.value->is_table()) {
        return refuse_type(entry, is_luns      ? "sections [luns.ALIAS]"
                                  : is_targets ? "sections [targets.\"NAME\"]"
                                               : "a section [defaults]");
      }
      (is_luns ? luns : is_targets ? targets : default_section) = entry;
    } else if (contains(kTopNames, entry.name)) {
      if (auto done = top(entry, configuration); !done) {
        return tl::unexpected(done.error());
      }
    } else if (find_setting(entry.name) != nullptr) {
      return refuse(entry, fmt::format("{} belongs into [defaults] or [luns.ALIAS]", entry.name));
    } else {
      std::vector<std::string_view> known(kTopNames.begin(), kTopNames.end());
      known.insert(known.end(), {"defaults", "targets", "luns", "device"});
      return refuse_unknown(entry, "of this file", known);
    }
  }
  Settings settings;
  settings.session = configuration.session;
  settings.multipath.arrays = arrays;
  if (default_section.value != nullptr) {
    if (auto done = defaults(default_section, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  configuration.session = settings.result();
  configuration.multipath = settings.multipath;
  configuration.paths = settings.paths;
  std::map<std::string, Settings> of_targets;
  if (targets.value != nullptr) {
    for (const ConfigurationEntry& entry : entries_of(*targets.value->as_table(), file_)) {
      auto one = target(entry, settings);
      if (!one) {
        return tl::unexpected(one.error());
      }
      ConfiguredTarget& configured = configuration.targets[entry.name];
      configured = {one->result(), one->multipath, one->paths};
      configured.session.initiator_name = configuration.initiator_name;
      of_targets.emplace(entry.name, std::move(*one));
    }
  }
  if (luns.value != nullptr) {
    for (const ConfigurationEntry& entry : entries_of(*luns.value->as_table(), file_)) {
      auto one = lun(entry, settings, of_targets);
      if (!one) {
        return tl::unexpected(one.error());
      }
      one->session.initiator_name = configuration.initiator_name;
      configuration.luns.emplace(entry.name, std::move(*one));
    }
  }
  configuration.session.initiator_name = configuration.initiator_name;
  return configuration;
}

}  // namespace

Result<Configuration> read_document(const toml::table& root, const std::string& file) {
  return Reader(file).read(root);
}

Result<ArrayTable> read_arrays(const toml::table& root, const std::string& file) {
  const Reader reader(file);
  ArrayTable table;
  for (const ConfigurationEntry& entry : entries_of(root, &file)) {
    if (entry.name != "device") {
      return refuse_unknown(entry, "of an array table", {});
    }
    auto rows = reader.devices(entry);
    if (!rows) {
      return rows;
    }
    table = std::move(*rows);
  }
  for (ArrayRow& row : table) {
    row.prio_without_alua = true;
  }
  return table;
}

}  // namespace iscsi_blkback
