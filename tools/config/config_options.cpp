#include "tools/config/config_options.h"

#include <algorithm>
#include <charconv>
#include <type_traits>
#include <utility>

#include "base/ascii_case.h"
#include "base/decimal.h"
#include "base/log.h"
#include "base/split.h"
#include "base/words.h"
#include "multipath/attach/session_isid.h"
#include "multipath/path/pr_registration.h"
#include "tools/config/config.h"

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;
using Kind = ConfigOption::Kind;

// --- Texts: what they are read as; nothing, false or an error: they are refused

constexpr Word<bool> kSaysNoChap[] = {{"None", true}, {"CHAP", false}};
constexpr Word<RrWeight> kRrWeights[] = {{"uniform", RrWeight::uniform},
                                         {"priorities", RrWeight::priorities}};
constexpr Word<NoSpacePolicy> kNoSpacePolicies[] = {{"hold", NoSpacePolicy::hold},
                                                    {"fail", NoSpacePolicy::fail}};
constexpr Word<bool> kGrows[] = {{"grow_only", true}, {"never", false}};
// Of features, and the options that they set. multipathd takes the last one out as well, for an
// option that a LUN needs nobody to set.
constexpr Word<const char*> kFeatures[] = {{"queue_if_no_path", "no_path_retry"},
                                           {"pg_init_retries", "pg_init_retries"},
                                           {"pg_init_delay_msecs", "pg_init_delay"},
                                           {"retain_attached_hw_handler", ""}};

Result<bool> says_grow_only(std::string_view word) {
  if (const auto grows = named<kGrows>(word)) {
    return *grows;
  }
  return fail(ErrorCode::invalid_argument,
              word == "grow_shrink"
                  ? "auto_resize may be \"grow_only\" or \"never\": a disk that shrinks under a "
                    "running guest loses what the guest has behind the new end"
                  : "auto_resize is neither \"grow_only\" nor \"never\"");
}

std::optional<PathCheckerKind> checker_named(std::string_view word) {
  const auto kind = path_checker_named(word);
  if (kind && word != to_string(*kind)) {
    log_warning("config", "path_checker \"{}\" is the old name of \"{}\"", word, to_string(*kind));
  }
  return kind;
}

// multipath.conf also has "file", and flags behind the number.
std::optional<std::uint64_t> parse_reservation_key(std::string_view word) {
  const bool has_prefix = word.starts_with("0x") || word.starts_with("0X");
  const char* const end = word.data() + word.size();
  std::uint64_t key = 0;
  const auto [stop, error] = std::from_chars(has_prefix ? word.data() + 2 : end, end, key, 16);
  const bool right =
      error == std::errc() && stop == end && key != 0 && key <= PrRegistration::kMaxHostKey;
  return right ? std::optional(key) : std::nullopt;
}

std::optional<std::vector<ChapAlgorithm>> chap_list(std::string_view list) {
  std::vector<ChapAlgorithm> algorithms;
  for (const std::string_view word : split(list, ',')) {
    const auto algorithm = parse_chap_algorithm(trimmed(word, " "));
    if (!algorithm ||
        std::find(algorithms.begin(), algorithms.end(), *algorithm) != algorithms.end()) {
      return std::nullopt;
    }
    algorithms.push_back(*algorithm);
  }
  return algorithms;
}

bool is_filled(std::string_view text) {
  return !text.empty();
}
bool is_log_level(std::string_view text) {
  return parse_log_level(text).has_value();
}
bool is_initiator_alias(std::string_view text) {
  return !text.empty() && text.size() <= 255 &&  // RFC 7143 6.1
         std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}
// The interface of its zone may come later.
bool is_source_address(std::string_view text) {
  const auto address = SocketAddress::parse(std::string(text), 0);
  return address || address.error().code == ErrorCode::not_found;
}

// --- Values that are more than a text

std::string pattern_of(const ConfigEntry& entry) {
  std::string value = text_of(entry);
  if (auto checked = check_pattern(value, false); !checked) {
    entry.refuse("{} {}", entry.name, checked.error().message);
  }
  return value;
}

std::vector<std::string> prio_args_of(const ConfigEntry& entry) {
  std::vector<std::string> words = texts_of(entry);
  return words == std::vector<std::string>{""} ? std::vector<std::string>{}  // the old default
                                               : words;
}

std::vector<PathRule> path_weights_of(const ConfigEntry& entry) {
  constexpr std::uint32_t kMaxWeight = 100;  // dm-mpath's relative_throughput
  std::vector<PathRule> rules;
  for (const std::string& word : texts_of(entry)) {
    if (auto rule = parse_path_rule(word, kMaxWeight)) {
      rules.push_back(std::move(*rule));
    } else {
      entry.refuse("path_weights {}", rule.error().message);
      break;
    }
  }
  return rules;
}

Failback failback_of(const ConfigEntry& entry) {
  return entry.taken(parse_failback(word_or_number_of(
      entry, "\"immediate\", \"manual\", \"followover\" or a number of seconds")));
}

WrittenNoPathRetry no_path_retry_of(const ConfigEntry& entry) {
  return entry.taken(parse_no_path_retry(word_or_number_of(
      entry, "\"queue\", \"fail\", a number of checks, or seconds like \"30s\"")));
}

PortalGroupFences portal_group_fences_of(const ConfigEntry& entry) {
  const auto text = entry.value->value<std::string_view>();
  if (text && equal_text(*text, "trial")) {
    return PortalGroupFences::trial;
  }
  const auto fences = text ? parse_yes_no(*text) : entry.value->value_exact<bool>();
  if (!fences) {
    entry.refuse("{} must be true, false, \"Yes\", \"No\" or \"Trial\"", entry.name);
  }
  return fences.value_or(false) ? PortalGroupFences::yes : PortalGroupFences::no;
}

// A string is the option of that name, or a table has that and others.
ConfigDraft portal_or_interface(const ConfigEntry& entry, unsigned sections, const char* of,
                                const char* name, const char* wanted) {
  ConfigDraft draft(entry, sections, of);
  if (entry.value->is_string()) {
    const ConfigOption* option = find_option(name, sections);
    option->store(*option, entry, draft);
  } else if (entry.value->is_table()) {
    read_options(draft);
  } else {
    entry.refuse_type(wanted);
  }
  return draft;
}

InterfaceBinding interface_of(const ConfigEntry& entry) {
  const ConfigDraft draft =
      portal_or_interface(entry, kInInterfaces, "of an interface", "interface",
                          "the name of a network interface, or a table like { iface.hwaddress = "
                          "\"52:54:00:12:34:56\" }");
  if (draft.interface.empty()) {
    entry.refuse(
        "an interface's table needs iface.net_ifacename, iface.ipaddress or iface.hwaddress");
  }
  return draft.interface;
}

std::vector<InterfaceBinding> interfaces_of(const ConfigEntry& entry) {
  constexpr std::size_t kMaxInterfaces = 16;
  return list_of(entry, &interface_of, "an array like [\"eth1\", \"eth2\"]", "interface",
                 kMaxInterfaces);
}

Portal portal_of(const ConfigEntry& entry) {
  ConfigDraft draft =
      portal_or_interface(entry, kInPortals, "of a portal", "portal",
                          "a string \"HOST[:PORT]\" or a table with portal, interface and target");
  if (draft.portal.host.empty()) {
    entry.refuse("a portal's table needs portal = \"HOST[:PORT]\"");
  }
  draft.portal.interface_binding = draft.interface;
  return draft.portal;
}

std::vector<Portal> portals_of(const ConfigEntry& entry) {
  return list_of(entry, &portal_of, "an array like [\"192.0.2.1:3260\", \"192.0.2.2\"]", "portal",
                 kMaxPortalsPerDisk);
}

std::vector<Portal> discovery_portals_of(const ConfigEntry& entry) {
  std::vector<Portal> list = portals_of(entry);
  if (std::any_of(list.begin(), list.end(),
                  [](const Portal& portal) { return !portal.target_name.empty(); })) {
    entry.refuse(
        "portals outside of a LUN's section are asked for their targets, and have none of their "
        "own");
  }
  return list;
}

void read_portal(const ConfigOption&, const ConfigEntry& entry, ConfigDraft& draft) {
  if (auto parsed = parse_portal(text_of(entry))) {
    draft.portal.host = std::move(parsed->host);
    draft.portal.port = parsed->port;
  } else {
    entry.refuse("{}: {}", entry.name, parsed.error().message);
  }
}

// One name, or an array of those by which the array serves the LUN.
void read_targets(const ConfigOption&, const ConfigEntry& entry, ConfigDraft& draft) {
  if (!entry.value->is_array()) {
    draft.target_name = iscsi_name_of(entry);
    return;
  }
  const std::vector<ConfigEntry> names = elements_of(entry);
  if (names.empty() || names.size() > kMaxTargetNamesPerDisk) {
    entry.refuse("target names none, or more than {} names", kMaxTargetNamesPerDisk);
  }
  for (const ConfigEntry& element : names) {
    const std::string name = iscsi_name_of(element);
    if (!add_target_name(name, draft.target_name, draft.other_target_names)) {
      element.refuse("target names {} twice", name);
    }
  }
}

// multipath.conf's older way to say some of the others: "3 queue_if_no_path pg_init_retries 5".
void read_features(const ConfigOption&, const ConfigEntry& entry, ConfigDraft& draft) {
  const std::string text = text_of(entry);
  std::vector<std::string_view> words = split(text, ' ');
  std::erase(words, std::string_view{});
  const auto count = words.empty() ? std::nullopt : parse_decimal<std::size_t>(words[0]);
  if (!count || *count != words.size() - 1) {
    entry.refuse(
        "features does not begin with the number of words that follow, as in \"0\" or \"1 "
        "queue_if_no_path\"");
    return;
  }
  for (std::size_t at = 1; at < words.size(); ++at) {
    const std::string_view word = words[at];
    const auto option = named<kFeatures>(word);
    if (!option && word == "queue_mode") {
      entry.refuse("features queue_mode has no meaning here: there is no queue of the kernel's");
    } else if (!option) {
      entry.refuse(
          "features knows queue_if_no_path, pg_init_retries NUMBER and pg_init_delay_msecs NUMBER "
          "here, not {}",
          word);
    }
    if (!option || **option == '\0') {
      continue;
    }
    if (const ConfigOption* numeric = find_option(*option, kOfDevices); numeric->most != 0) {
      ++at;
      const auto number =
          at < words.size() ? parse_decimal<std::uint32_t>(words[at]) : std::nullopt;
      if (!number || *number < numeric->least || *number > numeric->most) {
        entry.refuse("features needs a number from {} to {} behind {}", numeric->least,
                     numeric->most, word);
      } else if (word == "pg_init_retries") {
        draft.multipath.pg_init_retries = *number;
      } else {
        draft.multipath.pg_init_delay = Milliseconds(*number);
      }
    } else {
      draft.no_path_retry = WrittenNoPathRetry{.time = std::nullopt};  // queue
    }
    if (const auto line = draft.note(*option, entry)) {
      entry.refuse("features sets {}, and so does line {}", *option, *line);
    }
  }
}

// --- Kinds of options

// Where the draft has it: a member of one of its parts, or a member of that.
template <auto kFirst, auto... kRest>
auto& place_in(ConfigDraft& draft) {
  return ((draft.part(kFirst).*kFirst).*....*kRest);
}

// What kRead makes of an entry, or of its text.
template <auto kRead>
auto read_by(const ConfigOption& option, const ConfigEntry& entry) {
  if constexpr (std::is_invocable_v<decltype(kRead), const ConfigOption&, const ConfigEntry&>) {
    return kRead(option, entry);
  } else if constexpr (std::is_invocable_v<decltype(kRead), const ConfigEntry&>) {
    return kRead(entry);
  } else {
    std::string text = text_of(entry);
    auto parsed = kRead(text);
    if constexpr (requires { parsed.error(); }) {
      return entry.taken(std::move(parsed));
    } else {
      if (!parsed) {
        entry.refuse("{} {}", entry.name, option.words);
      }
      if constexpr (std::is_same_v<decltype(parsed), bool>) {
        return text;
      } else {
        return std::move(parsed).value_or(typename decltype(parsed)::value_type{});
      }
    }
  }
}
template <auto kRead, auto... kMembers>
void store(const ConfigOption& option, const ConfigEntry& entry, ConfigDraft& draft) {
  auto& place = place_in<kMembers...>(draft);
  place = static_cast<std::remove_cvref_t<decltype(place)>>(read_by<kRead>(option, entry));
}

// Numbers: whole ones, milliseconds, and no and yes.
std::int64_t read_number(const ConfigOption& option, const ConfigEntry& entry) {
  switch (option.kind) {
    case Kind::yes_no:
      return yes_no_of(entry) ? 1 : 0;
    case Kind::seconds:
      return seconds_of(entry, Milliseconds(option.least), Milliseconds(option.most)).count();
    default:
      return whole_of(entry, option.least, option.most);
  }
}
std::int64_t read_sector_size(const ConfigOption& option, const ConfigEntry& entry) {
  const auto* number = entry.value->as_integer();
  if (number == nullptr || (number->get() != option.least && number->get() != option.most)) {
    entry.refuse("{} must be {} or {}", entry.name, option.least, option.most);
    return option.least;
  }
  return number->get();
}
// Of a path that fails again and again; "no" is multipath.conf's word for 0.
std::int64_t read_marginal(const ConfigOption& option, const ConfigEntry& entry) {
  if (!entry.value->is_string() || text_of(entry) != "no") {
    return read_number(option, entry);
  }
  if (option.least != 0) {
    entry.refuse(
        "{} is for paths that fail again and again: where there are none to be, "
        "marginal_path_double_failed_time is \"no\"",
        entry.name);
  }
  return 0;
}
template <auto... kMembers>
std::optional<std::int64_t> number_of(ConfigDraft& draft) {
  const auto& number = place_in<kMembers...>(draft);
  if constexpr (requires { number.count(); }) {
    return number.count();
  } else if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(number)>>) {
    return number;
  } else {
    return std::nullopt;  // the LUN decides
  }
}
template <auto... kMembers>
bool same_in(ConfigDraft& one, ConfigDraft& other) {
  return place_in<kMembers...>(one) == place_in<kMembers...>(other);
}
template <auto kRead, auto... kMembers>
constexpr ConfigOption number(std::string_view name, Kind kind, std::int64_t least,
                              std::int64_t most) {
  return {.name = name,
          .kind = kind,
          .store = &store<kRead, kMembers...>,
          .least = least,
          .most = most,
          .number_in = &number_of<kMembers...>,
          .same = &same_in<kMembers...>};
}
template <auto... kMembers>
constexpr ConfigOption seconds(std::string_view name, std::int64_t least = 100,
                               std::int64_t most = 3600 * 1000) {
  return number<&read_number, kMembers...>(name, Kind::seconds, least, most);
}
template <auto kMember>
constexpr ConfigOption marginal(std::string_view name, std::int64_t least) {
  return number<&read_marginal, &MultipathOptions::marginal, kMember>(name, Kind::seconds, least,
                                                                      3600 * 1000);
}
template <auto... kMembers>
constexpr ConfigOption whole(std::string_view name, std::int64_t least, std::int64_t most) {
  return number<&read_number, kMembers...>(name, Kind::whole, least, most);
}
template <auto... kMembers>
constexpr ConfigOption yes_no(std::string_view name) {
  return number<&read_number, kMembers...>(name, Kind::yes_no, 0, 1);
}

constexpr ConfigOption special(std::string_view name, ConfigOption::Store* store,
                               std::string_view words) {
  return {name, Kind::text, store, words};
}
// What kRead makes of the entry or of its text: a value, or whether the text is the value. words:
// of the sentence about any other text, behind the option's name.
template <auto kRead, auto... kMembers>
constexpr ConfigOption text(std::string_view name, std::string_view words) {
  ConfigOption option = special(name, &store<kRead, kMembers...>, words);
  option.same = &same_in<kMembers...>;
  return option;
}
// Where the paths of a LUN lead.
template <auto kRead, auto... kMembers>
constexpr ConfigOption way(std::string_view name, std::string_view words) {
  return special(name, &store<kRead, kMembers...>, words);
}

// Error recovery level 0 over one connection allows one value only; accepted so that whoever writes
// it down is not refused.
void check_fixed(const ConfigOption& option, const ConfigEntry& entry, ConfigDraft&) {
  const bool is_word = option.kind == Kind::yes_no;
  const auto* number = entry.value->as_integer();
  if (is_word ? !yes_no_of(entry) : number == nullptr || number->get() != option.least) {
    entry.refuse("{} can only be {}: {}", entry.name,
                 is_word ? "Yes" : std::to_string(option.least), option.words);
  }
}
constexpr ConfigOption fixed(std::string_view name, Kind kind, std::int64_t only,
                             std::string_view because) {
  return {name, kind, &check_fixed, because, only, only};
}

// Of the one interface of a disk's portals, whose parts add up over the sections, or of an element
// of portals or interfaces, which has no section.
template <auto kParse, auto kPart>
constexpr ConfigOption interface(std::string_view name, std::string_view rule) {
  return special(
      name,
      [](const ConfigOption& option, const ConfigEntry& entry, ConfigDraft& draft) {
        std::string& part = draft.interface.*kPart;
        if (draft.section.empty() && !part.empty()) {
          entry.refuse("{} names a second interface", entry.name);
        }
        part = read_by<kParse>(option, entry);
        draft.paths.interfaces = {draft.interface};
      },
      rule);
}

// --- The options

using OfSession = SessionOptions;
using Multipath = MultipathOptions;
using Policies = PathPolicySettings;
using Binding = InterfaceBinding;
using Chap = ChapOptions;
constexpr auto kChap = &SessionOptions::chap;
constexpr auto kFound = &SessionOptions::discovery_chap;

// iscsid.conf's name of an option is one of these and the option's name.
constexpr std::string_view kConnTimeo = "node.conn[0].timeo.";
constexpr std::string_view kErrTimeo = "node.session.err_timeo.";
constexpr std::string_view kNodeSession = "node.session.";
constexpr std::string_view kAuth = "node.session.auth.";
constexpr std::string_view kConnIscsi = "node.conn[0].iscsi.";
constexpr std::string_view kNodeIscsi = "node.session.iscsi.";

constexpr unsigned kOfPaths = kOfDisks | kOfDevices;
constexpr unsigned kBinding = kOfDisks | kInPortals | kInInterfaces;
constexpr std::int64_t kMaxSegment = 0xffffff;  // RFC 7143 13.12 to 13.14: 512 to 2**24-1

constexpr const char* kPattern = "a pattern: * any text, ? one character";
constexpr const char* kChapList =
    "must be a list of SHA3-256, SHA256, SHA1 and MD5, the first choice first, like "
    "\"SHA256,MD5\"";
constexpr const char* kChapOrNone = "must be \"None\" or \"CHAP\"";
constexpr const char* kUser = "must have 1 to 255 characters";
constexpr const char* kSecret = "must have 12 to 255 characters";
static_assert(kMaxChapNameBytes == 255 && kMinChapSecretBytes == 12 && kMaxChapSecretBytes == 255);
constexpr const char* kDigests = "must be \"None\", \"CRC32C\", \"CRC32C,None\" or \"None,CRC32C\"";
constexpr const char* kAlias = "must have 1 to 255 bytes and no control character";
constexpr const char* kFolder = "must be an absolute path of at most 80 bytes";
constexpr const char* kInterface = "must be the name of a network interface, like \"eth1\"";
constexpr const char* kDisorder = "data that comes out of order proves nothing";

// Their order is that of --help-config and of what a misspelt one is taken for.
// clang-format off
constexpr ConfigOption kOptions[] = {
    // [[device]] alone
    text<&pattern_of, &ArrayRow::vendor>("vendor", kPattern).in(kOfDevices),
    text<&pattern_of, &ArrayRow::product>("product", kPattern).in(kOfDevices),
    text<&pattern_of, &ArrayRow::revision>("revision", kPattern).in(kOfDevices),
    // multipath.conf
    text<&path_grouping_policy_named, &Policies::path_grouping_policy>("path_grouping_policy",
        kNoPathGroupingPolicy).in(kOfPaths),
    text<&path_selector_named, &Policies::path_selector>("path_selector",
        kNoPathSelector).in(kOfPaths),
    whole<&Policies::rr_min_io>("rr_min_io", 1, 100000).in(kOfPaths),
    text<&named<kRrWeights>, &Policies::rr_weight>("rr_weight",
        "is neither uniform nor priorities").in(kOfPaths),
    text<&prioritizer_named, &ConfigDraft::prio>("prio", kNoPrioritizer).in(kOfPaths),
    text<&prio_args_of, &ConfigDraft::prio_args>("prio_args",
        "a text or a list of texts").in(kOfPaths),
    text<&failback_of, &Policies::failback>("failback",
        "immediate, manual, followover or 0 to 3600 seconds").in(kOfPaths),
    whole<&Policies::pg_init_retries>("pg_init_retries", 1, 50).in(kOfPaths),
    seconds<&Policies::pg_init_delay>("pg_init_delay", 10, 60000).in(kOfPaths),
    text<&path_weights_of, &Multipath::path_weights>("path_weights",
        "a list like [\"interface eth1 4\", \"portal * 1\"]"),
    text<&no_path_retry_of, &ConfigDraft::no_path_retry>("no_path_retry",
        "queue, fail, a number of checks, or seconds like \"30s\"").in(kOfPaths),
    special("features", &read_features, "like \"1 queue_if_no_path\"").in(kOfPaths),
    seconds<&Multipath::polling_interval>("polling_interval"),
    text<&checker_named, &Policies::path_checker>("path_checker",
        "is none of tur, directio, rdac and none").in(kOfPaths),
    seconds<&Multipath::max_polling_interval>("max_polling_interval"),
    marginal<&MarginalPathOptions::double_failed_time>("marginal_path_double_failed_time", 0),
    marginal<&MarginalPathOptions::err_recheck_gap_time>("marginal_path_err_recheck_gap_time",
        1000),
    seconds<&Multipath::checker_timeout>("checker_timeout"),
    text<&says_grow_only, &Multipath::grows>("auto_resize",
        "is neither \"grow_only\" nor \"never\""),
    text<&parse_reservation_key, &Multipath::reservation_key>("reservation_key",
        "is no hexadecimal number like \"0x5a00\" of 1 to 6 digits, not all 0: the rest of a key "
        "tells the host's paths apart"),
    // iscsid.conf
    seconds<&OfSession::login_timeout>("login_timeout").iscsid(kConnTimeo),
    seconds<&OfSession::logout_timeout>("logout_timeout").iscsid(kConnTimeo),
    seconds<&OfSession::noop_out_interval>("noop_out_interval", 0).iscsid(kConnTimeo),
    seconds<&OfSession::noop_out_timeout>("noop_out_timeout").iscsid(kConnTimeo),
    seconds<&OfSession::abort_timeout>("abort_timeout").iscsid(kErrTimeo),
    seconds<&OfSession::lu_reset_timeout>("lu_reset_timeout").iscsid(kErrTimeo),
    seconds<&OfSession::tgt_reset_timeout>("tgt_reset_timeout").iscsid(kErrTimeo),
    whole<&OfSession::max_commands>("cmds_max", 1, 4096).iscsid(kNodeSession),
    whole<&PortalOptions::sessions_per_portal>("nr_sessions",
        1, kMaxSessionsPerPortal).iscsid(kNodeSession),
    text<&named<kSaysNoChap>, &ConfigDraft::chap_off>("authmethod", kChapOrNone).iscsid(kAuth),
    text<&chap_list, kChap, &Chap::algorithms>("chap_algs", kChapList).iscsid(kAuth),
    text<&is_filled, kChap, &Chap::username>("username", kUser).iscsid(kAuth),
    text<&is_filled, kChap, &Chap::password>("password", kSecret).iscsid(kAuth),
    text<&is_filled, kChap, &Chap::username_in>("username_in", kUser).iscsid(kAuth),
    text<&is_filled, kChap, &Chap::password_in>("password_in", kSecret).iscsid(kAuth),
    text<&named<kSaysNoChap>, &ConfigDraft::discovery_chap_off>("discovery.sendtargets.auth.authmethod",
        kChapOrNone),
    text<&chap_list, kFound, &Chap::algorithms>("discovery.sendtargets.auth.chap_algs", kChapList),
    text<&is_filled, kFound, &Chap::username>("discovery.sendtargets.auth.username", kUser),
    text<&is_filled, kFound, &Chap::password>("discovery.sendtargets.auth.password", kSecret),
    text<&is_filled, kFound, &Chap::username_in>("discovery.sendtargets.auth.username_in", kUser),
    text<&is_filled, kFound, &Chap::password_in>("discovery.sendtargets.auth.password_in", kSecret),
    // iscsiadm's interfaces
    way<&interfaces_of, &PortalOptions::interfaces>("interfaces",
        "a list of names, or of tables with iface. and its parts"),
    interface<&is_interface_name, &Binding::name>("iface.net_ifacename", kInterface).in(kBinding),
    interface<&is_source_address, &Binding::address>("iface.ipaddress",
        "must be a numeric IPv4 or IPv6 address of this host, without a port").in(kBinding),
    interface<&parse_hardware_address, &Binding::hardware_address>("iface.hwaddress",
        "must be a hardware address like \"52:54:00:12:34:56\"").in(kBinding),
    // RFC 7143, section 13
    text<&named<kDigestOffers>, &OfSession::header_digest>("HeaderDigest", kDigests).iscsid(kConnIscsi),
    text<&named<kDigestOffers>, &OfSession::data_digest>("DataDigest", kDigests).iscsid(kConnIscsi),
    text<&is_initiator_alias, &OfSession::initiator_alias>("InitiatorAlias", kAlias),
    fixed("ErrorRecoveryLevel",
        Kind::whole, 0, "a lost connection is replaced by a new session").iscsid(kNodeIscsi, "ERL"),
    fixed("MaxConnections",
        Kind::whole, 1, "more sessions do the same, see nr_sessions").iscsid(kNodeIscsi),
    fixed("DataPDUInOrder", Kind::yes_no, 1, kDisorder).iscsid(kNodeIscsi),
    fixed("DataSequenceInOrder", Kind::yes_no, 1, kDisorder).iscsid(kNodeIscsi),
    yes_no<&OfSession::initial_r2t>("InitialR2T").iscsid(kNodeIscsi),
    yes_no<&OfSession::immediate_data>("ImmediateData").iscsid(kNodeIscsi),
    whole<&OfSession::first_burst_length>("FirstBurstLength", 512, kMaxSegment).iscsid(kNodeIscsi),
    whole<&OfSession::max_burst_length>("MaxBurstLength", 512, kMaxSegment).iscsid(kNodeIscsi),
    whole<&OfSession::max_recv_data_segment_length>("MaxRecvDataSegmentLength",
        512, kMaxSegment).iscsid(kConnIscsi),
    whole<&OfSession::max_outstanding_r2t>("MaxOutstandingR2T", 1, 8).iscsid(kNodeIscsi),
    whole<&OfSession::default_time2wait>("DefaultTime2Wait", 0, 3600).iscsid(kNodeIscsi),
    whole<&OfSession::default_time2retain>("DefaultTime2Retain", 0, 3600).iscsid(kNodeIscsi),
    // our own
    seconds<&OfSession::connect_timeout>("connect_timeout", 10),
    seconds<&OfSession::stall_probe>("stall_probe", 10),
    seconds<&OfSession::path_timeout>("path_timeout", 20),
    seconds<&OfSession::command_timeout>("command_timeout", 0),
    yes_no<&Multipath::exclusive_luns>("exclusive_luns"),
    yes_no<&Multipath::shared>("shared"),
    number<&read_sector_size, &DiskOptions::sector_size>("sector_size",
        Kind::whole, 512, 4096).said("512 or 4096"),
    text<&portal_group_fences_of, &Policies::portal_group_fences>("portal_group_fences",
        "yes, no or \"trial\"").in(kOfPaths),
    yes_no<&Multipath::redirected_login_fences>("redirected_login_fences"),
    seconds<&OfSession::tcp_user_timeout>("tcp_user_timeout"),
    seconds<&OfSession::relogin_backoff_min>("relogin_backoff_min", 10),
    seconds<&OfSession::relogin_backoff_max>("relogin_backoff_max", 10),
    seconds<&Multipath::capacity_polling_interval>("capacity_polling_interval", 0),
    text<&named<kNoSpacePolicies>, &Multipath::no_space>("no_space", "is neither \"hold\" nor \"fail\""),
    seconds<&Multipath::quiesce_time>("quiesce_time", 0),
    seconds<&Multipath::fence_settle_time>("fence_settle_time"),
    // [luns.ALIAS] alone
    special("target", &read_targets, "a target name, or a list of up to 8").in(kOfLuns).wanted(),
    whole<&ConfiguredLun::lun>("lun", 0, kMaxLun).in(kOfLuns).wanted(),
    way<&portals_of, &ConfiguredLun::portals>("portals", "as at the top").in(kOfLuns),
    text<&parse_wwid, &Multipath::wwid>("wwid",
        "as iscsi-blkctl ll or scsi_id shows it").in(kOfLuns),
    // at the top of the file
    text<&iscsi_name_of, &Configuration::initiator_name>("initiator_name",
        "an iqn., eui. or naa. name").in(kAtTop),
    text<&is_initiator_alias, &OfSession::initiator_alias>("initiator_alias", kAlias).in(kAtTop),
    text<&discovery_portals_of, &Configuration::discovery_portals>("portals",
        "a list like [\"192.0.2.1:3260\", \"192.0.2.2\"]").in(kAtTop),
    text<&is_log_level, &Configuration::log_level>("log_level",
        "must be error, warning, info or debug").in(kAtTop),
    text<&is_run_directory, &Configuration::run_directory>("run_directory", kFolder).in(kAtTop),
    text<&is_run_directory, &Configuration::state_directory>("state_directory", kFolder).in(kAtTop),
    whole<&Configuration::max_ring_page_order>("max_ring_page_order", 0, 4).in(kAtTop),
    whole<&Configuration::max_queues>("max_queues", 1, 16).in(kAtTop),
    whole<&Configuration::reactors>("reactors", 1, kMaxReactors).in(kAtTop),
    whole<&Configuration::poll_max_us>("poll_max_us", 0, 1000).in(kAtTop),
    whole<&Configuration::poll_cpu_share>("poll_cpu_share", 1, 100).in(kAtTop),
    whole<&Configuration::max_indirect_segments>("max_indirect_segments", 0, 256).in(kAtTop),
    whole<&Configuration::max_buffers_mb>("max_buffers_mb", 4, 4096).in(kAtTop),
    yes_no<&Configuration::core_dumps>("core_dumps").in(kAtTop),
    yes_no<&Configuration::sandbox>("sandbox").in(kAtTop),
    whole<&Configuration::first_guest_user>("first_guest_user", 1, 4294900000).in(kAtTop),
    // a table among portals or interfaces
    special("portal", &read_portal, "HOST[:PORT]").in(kInPortals),
    interface<&is_interface_name, &Binding::name>("interface",
        kInterface).in(kInPortals | kInInterfaces),
    text<&iscsi_name_of, &Portal::target_name>("target", "a target name").in(kInPortals),
};
// clang-format on

// "NAME is not an option of [defaults]; did you mean OTHER?", or why it has no meaning here.
void refuse_unknown(const ConfigEntry& entry, const ConfigDraft& draft) {
  if (const std::string_view why = why_meaningless(entry.name); !why.empty()) {
    entry.refuse("{} has no meaning here: {}", entry.name, why);
  }
  std::vector<std::string_view> known;
  for (const ConfigOption& option : kOptions) {
    if ((option.sections & draft.sections) != 0) {
      known.push_back(option.name);
    }
  }
  if (draft.sections == kAtTop) {
    known.insert(known.end(), {"defaults", "targets", "luns", "device"});
  }
  entry.refuse("{} is not an option {}{}", entry.name, draft.of, suggestion(entry.name, known));
}

}  // namespace

const std::uint32_t* ConfigDraft::line_of(std::string_view option) const {
  const auto found = written.find(option);
  return found == written.end() || found->second.section != section ? nullptr : &found->second.line;
}

std::optional<std::uint32_t> ConfigDraft::note(std::string_view option, const ConfigEntry& by) {
  if (const std::uint32_t* line = line_of(option)) {
    return *line;
  }
  written.insert_or_assign(option, Place{by.line, section});
  return std::nullopt;
}

bool ConfigOption::is_called(std::string_view text) const {
  return text == name || (!iscsid_prefix.empty() && text.starts_with(iscsid_prefix) &&
                          text.substr(iscsid_prefix.size()) == iscsid_key);
}

std::string ConfigOption::shown(std::int64_t number) const {
  return kind == Kind::seconds  ? in_seconds(Milliseconds(number))
         : kind == Kind::yes_no ? (number != 0 ? "yes" : "no")
                                : fmt::format("{}", number);
}

std::optional<std::int64_t> ConfigOption::default_value() const {
  Configuration top;
  ConfigDraft draft({}, kAtTop, "");
  draft.top = &top;
  return number_in == nullptr || required ? std::nullopt : number_in(draft);
}

std::span<const ConfigOption> config_options() {
  return kOptions;
}

const ConfigOption* find_option(std::string_view name, unsigned sections) {
  const auto found = std::find_if(std::begin(kOptions), std::end(kOptions), [&](const auto& one) {
    return (one.sections & sections) != 0 && one.is_called(name);
  });
  return found == std::end(kOptions) ? nullptr : found;
}

void read_option(const ConfigEntry& entry, ConfigDraft& draft) {
  const bool of_disks = find_option(entry.name, kOfDisks) != nullptr;
  if (const ConfigOption* option = find_option(entry.name, draft.sections)) {
    if (const auto line = draft.note(option->name, entry)) {
      entry.refuse("{} is set twice, see line {}", option->name, *line);
    }
    option->store(*option, entry, draft);
  } else if (of_disks && draft.sections == kOfDevices) {
    entry.refuse("{} is not an option of a device: it belongs into [defaults] or [luns.ALIAS]",
                 entry.name);
  } else if (of_disks && draft.sections == kAtTop) {
    entry.refuse("{} belongs into [defaults] or [luns.ALIAS]", entry.name);
  } else if (draft.section == "[defaults]" && find_option(entry.name, kAtTop) != nullptr) {
    entry.refuse("{} does not belong into a section: put it at the top of the file", entry.name);
  } else {
    refuse_unknown(entry, draft);
  }
}

void read_options(ConfigDraft& draft) {
  for (const ConfigEntry& entry : entries_of(draft.entry, true)) {
    read_option(entry, draft);
  }
}

}  // namespace iscsi_blkback
