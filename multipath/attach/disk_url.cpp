#include "multipath/attach/disk_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/ascii_case.h"
#include "base/decimal.h"
#include "base/printable_text.h"
#include "base/split.h"
#include "initiator/login/login_text.h"
#include "initiator/login/portal_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::string_view kScheme = "iscsi:";
constexpr std::string_view kRawFormat = "aio";  // libxl's word for it
constexpr std::array<std::string_view, 6> kFormats = {kRawFormat, "raw", "qcow",
                                                      "qcow2",    "qed", "vhd"};
constexpr std::string_view kBlanks = " \t\r\n\f\v";
constexpr std::string_view kQuotes = "'\"";
constexpr std::size_t kMaxAliasBytes = 64;

Error invalid(std::string sentence) {
  return Error{ErrorCode::invalid_argument, std::move(sentence)};
}

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
// What is wrong may be a secret at a wrong place: of several parts the sentence tells which one it
// is, and not what stands there.
Error in_part(Error error, const char* part, std::size_t number, bool is_only) {
  if (!is_only) {
    error.message += fmt::format(" ({} {} of the target)", part, number);
  }
  return error;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// What libxl makes of a disk line: FORMAT:TARGET.
struct WrittenTarget {
  std::string_view format;
  std::string_view before;  // the scheme: blanks and quotation marks
  std::string_view scheme;  // "iscsi:", perhaps in other letters or with blanks before its colon
  std::string_view target;  // behind it
};

// Nothing: it is none of ours, however it may be written.
std::optional<WrittenTarget> take_apart(std::string_view params) {
  WrittenTarget written;
  const std::string_view first = params.substr(0, params.find(':'));
  if (std::find(kFormats.begin(), kFormats.end(), first) != kFormats.end() &&
      first.size() < params.size()) {
    written.format = first;
    params.remove_prefix(first.size() + 1);
  }
  const std::size_t begin = params.find_first_not_of(std::string(kBlanks) + std::string(kQuotes));
  if (begin == std::string_view::npos) {
    return std::nullopt;
  }
  written.before = params.substr(0, begin);
  params.remove_prefix(begin);
  constexpr std::string_view kWord = kScheme.substr(0, kScheme.size() - 1);
  const std::size_t colon = params.find_first_not_of(kBlanks, kWord.size());
  if (lower(params.substr(0, kWord.size())) != kWord || colon == std::string_view::npos ||
      params[colon] != ':') {
    return std::nullopt;
  }
  written.scheme = params.substr(0, colon + 1);
  written.target = params.substr(colon + 1);
  return written;
}

// Words of a disk line that xl would have understood before target=, which takes the rest.
constexpr std::array<std::string_view, 18> kLineKeys = {
    "access",    "active-disk",   "backend", "backendtype", "cdrom",       "colo-export",
    "colo-host", "colo-port",     "devtype", "format",      "grant_usage", "hidden-disk",
    "script",    "specification", "target",  "transport",   "trusted",     "vdev"};
constexpr std::array<std::string_view, 15> kLineWords = {
    "ro",        "r",       "rw",       "w",          "readonly",       "readwrite",
    "cdrom",     "colo",    "discard",  "no-discard", "direct-io-safe", "raw",
    "removable", "trusted", "untrusted"};

// target: behind "iscsi:". Portals follow one another with commas, so that what is looked at begins
// behind them.
Result<void> check_rest_of_line(std::string_view target) {
  std::string_view rest = target;
  if (rest.starts_with("//")) {
    rest.remove_prefix(std::min(rest.find('/', 2), rest.size()));
  }
  auto words = split(rest, ',');
  words.erase(words.begin());
  for (std::string_view word : words) {
    word = trimmed(word, kBlanks);
    const std::size_t equals = word.find('=');
    std::string key = lower(word.substr(0, equals));
    key.erase(key.find_last_not_of(kBlanks) + 1);
    const bool swallowed =
        equals != std::string_view::npos
            ? std::find(kLineKeys.begin(), kLineKeys.end(), key) != kLineKeys.end()
            : std::find(kLineWords.begin(), kLineWords.end(), key) != kLineWords.end();
    constexpr std::array<std::string_view, 6> kOfAccess = {"access",   "ro",    "r",
                                                           "readonly", "cdrom", "devtype"};
    if (swallowed) {
      const bool of_access = std::find(kOfAccess.begin(), kOfAccess.end(), key) != kOfAccess.end();
      return tl::unexpected(invalid(fmt::format(
          "target= takes the rest of the disk line, so that {}{} behind it says nothing{}: write "
          "it before target=",
          key, equals != std::string_view::npos ? "=" : "",
          of_access ? ", and the disk would be writable" : "")));
    }
  }
  return {};
}

// What a disk line can have that is wrong before anything else is.
Result<void> check_writing(const WrittenTarget& written) {
  if (!written.format.empty() && written.format != kRawFormat) {
    return tl::unexpected(invalid(
        fmt::format("the disk line says format={}: a LUN is served as it is, leave format= out",
                    written.format)));
  }
  const bool quoted =
      written.before.find_first_of(kQuotes) != std::string_view::npos ||
      (!written.target.empty() && kQuotes.find(written.target.back()) != std::string_view::npos);
  if (!written.before.empty() && kBlanks.find(written.before.front()) != std::string_view::npos) {
    return tl::unexpected(invalid("a blank stands before iscsi:"));
  }
  if (quoted) {
    return tl::unexpected(
        invalid("a quotation mark stands before or behind the target; a disk line has none"));
  }
  if (written.scheme.find_first_of(kBlanks) != std::string_view::npos) {
    return tl::unexpected(invalid("a blank stands within iscsi:"));
  }
  if (written.scheme != kScheme) {
    return tl::unexpected(invalid("iscsi: has to be written in small letters"));
  }
  if (auto checked = check_rest_of_line(written.target); !checked) {
    return checked;
  }
  if (!written.target.empty() && kBlanks.find(written.target.back()) != std::string_view::npos) {
    return tl::unexpected(
        invalid("a blank stands at the end of the target, and xl takes it for a part of it"));
  }
  const std::string_view body = written.target.substr(0, written.target.find('?'));
  if (const std::size_t blank = body.find(' '); blank != std::string_view::npos) {
    return tl::unexpected(
        invalid(fmt::format("a blank stands in the target, {} characters behind iscsi:", blank)));
  }
  return {};
}

// Whoever can read the guest's backend node (the guest can) would know the secret, and messages
// about the target string would spread it: so this is looked for first, in the whole string.
bool contains_secret(std::string_view text) {
  const std::string_view authority = text.starts_with("//") ? text.substr(2, text.find('/', 2) - 2)
                                                            : text.substr(0, text.find('/'));
  // libiscsi's user[%password]@host; a '%' alone is a password whose '@' was forgotten, but for the
  // zone of an IPv6 address.
  for (const std::string_view portal : split(authority.substr(0, authority.find('?')), ',')) {
    const std::size_t percent = portal.find('%');
    if (text.starts_with("//") && percent != std::string_view::npos &&
        portal.substr(0, percent).find(':') == std::string_view::npos) {
      return true;
    }
  }
  const std::string searched = lower(text);
  constexpr std::array<std::string_view, 6> kSecretWords = {"@",    "password", "passwd",
                                                            "chap", "secret",   "username"};
  return std::any_of(kSecretWords.begin(), kSecretWords.end(), [&](std::string_view word) {
    // A target may well be called "...:chapter1": words count in the query only, '@' anywhere.
    const std::size_t from = word == "@" ? 0 : std::min(searched.find('?'), searched.size());
    return searched.find(word, from) != std::string::npos;
  });
}

template <class Number>
std::optional<Number> parse_number(std::string_view text, Number least, Number most) {
  const auto value = parse_decimal<Number>(text);
  return value && *value >= least && *value <= most ? value : std::nullopt;
}

int hex_digit(char c) {
  if (is_digit(c)) {
    return c - '0';
  }
  const char folded = static_cast<char>(c | 0x20);
  return folded >= 'a' && folded <= 'f' ? folded - 'a' + 10 : -1;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      result.push_back(text[at]);
      continue;
    }
    if (at + 2 >= text.size() || hex_digit(text[at + 1]) < 0 || hex_digit(text[at + 2]) < 0) {
      return std::nullopt;
    }
    result.push_back(static_cast<char>(hex_digit(text[at + 1]) * 16 + hex_digit(text[at + 2])));
    at += 2;
  }
  return result;
}

bool is_target_name_type(std::string_view text) {
  const std::string start = lower(text.substr(0, 4));
  return start == "iqn." || start == "eui." || start == "naa.";
}

Result<std::string> parse_target_name(std::string_view text) {
  const std::optional<std::string> name = percent_decoded(text);
  if (!name) {
    return tl::unexpected(invalid("the target name has a '%' without two hexadecimal digits"));
  }
  if (auto checked = check_iscsi_name("the target name", *name); !checked) {
    return tl::unexpected(checked.error());
  }
  return *name;
}

Result<std::uint16_t> parse_lun(std::string_view text) {
  const auto lun = parse_number<std::uint16_t>(text, 0, kMaxLun);
  if (!lun) {
    return tl::unexpected(invalid(
        fmt::format("the LUN, behind the last '/', is not a number from 0 to {}", kMaxLun)));
  }
  return *lun;
}

bool is_host_character(char c) {
  return is_ascii_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_';
}

// RFC 6874: the zone's '%' is written %25 in a URL.
std::string with_plain_zone(std::string_view text) {
  std::string result(text);
  const std::size_t percent = result.find("%25");
  // "%25" itself is the zone of interface 25.
  if (percent != std::string::npos && percent + 3 < result.size() && result[percent + 3] != ']' &&
      result[percent + 3] != ':') {
    result.erase(percent + 1, 2);
  }
  return result;
}

Result<void> add_portal(std::vector<Portal>& portals, Portal portal) {
  const auto is_it = [&](const Portal& other) {
    return equal_text(other.host, portal.host) && other.port == portal.port &&
           same_iscsi_name(other.target_name, portal.target_name);
  };
  if (std::any_of(portals.begin(), portals.end(), is_it)) {
    return tl::unexpected(invalid(
        fmt::format("the portal {}{} is named twice", portal.to_string(),
                    portal.target_name.empty() ? std::string() : " of " + portal.target_name)));
  }
  if (portals.size() == kMaxPortalsPerDisk) {
    return tl::unexpected(
        invalid(fmt::format("more than {} portals are named", kMaxPortalsPerDisk)));
  }
  portals.push_back(std::move(portal));
  return {};
}

// The comma is also what is before a portal group tag: as no host is a number, a number is one.
// before: portals that stand before these; is_only: there is no other list.
Result<std::vector<Portal>> parse_portals(std::string_view text, std::size_t before, bool is_only) {
  std::vector<Portal> portals;
  bool may_have_tag = false;
  for (const std::string_view word : split(text, ',')) {
    if (may_have_tag && is_group_tag(word)) {
      may_have_tag = false;
      continue;
    }
    Result<Portal> portal = parse_portal(with_plain_zone(word));
    if (!portal) {
      return tl::unexpected(in_part(portal.error(), "portal", before + portals.size() + 1,
                                    is_only && word.size() == text.size()));
    }
    if (auto added = add_portal(portals, std::move(*portal)); !added) {
      return tl::unexpected(added.error());
    }
    may_have_tag = true;
  }
  return portals;
}

// prio_args follow one another with commas; %xx for a comma within one, or for a blank.
Result<void> parse_prio(std::optional<std::string_view> prio, std::optional<std::string_view> list,
                        DiskSettings& settings) {
  if (!prio) {
    return list ? Result<void>(tl::unexpected(
                      invalid("prio_args needs a prio behind the same '?' that they are for")))
                : Result<void>();
  }
  const auto kind = prioritizer_named(*prio);
  if (!kind) {
    return tl::unexpected(invalid(fmt::format("prio {}", kNoPrioritizer)));
  }
  std::vector<std::string> arguments;
  for (const std::string_view part : list ? split(*list, ',') : std::vector<std::string_view>{}) {
    auto argument = percent_decoded(part);
    if (!argument) {
      return tl::unexpected(invalid("prio_args has a '%' without two hexadecimal digits"));
    }
    arguments.push_back(std::move(*argument));
  }
  auto made = make_prioritizer(*kind, arguments);
  if (!made) {  // its sentence repeats what was given
    return tl::unexpected(invalid(fmt::format("prio_args is nothing that prio {} knows: {}",
                                              to_string(*kind), arguments_wanted(*kind))));
  }
  settings.prio = std::move(*made);
  return {};
}

// "%20" is the blank before the selector's number of arguments.
Result<PathSelectorKind> parse_written_selector(std::string_view value) {
  return parse_path_selector(value.ends_with("%200") ? value.substr(0, value.size() - 4) : value);
}

Result<std::uint32_t> parse_rr_min_io(std::string_view value) {
  if (const auto number = parse_number<std::uint32_t>(value, 1, 100000)) {
    return *number;
  }
  return tl::unexpected(invalid("rr_min_io is not a number from 1 to 100000"));
}

Result<std::string> check_no_path_retry(std::string_view value) {
  return parse_no_path_retry(value).map([&](const auto&) { return std::string(value); });
}

Result<std::string> parse_written_wwid(std::string_view value) {
  const auto decoded = percent_decoded(value);
  return decoded ? parse_wwid(*decoded)
                 : tl::unexpected(invalid("wwid has a '%' without two hexadecimal digits"));
}

Result<bool> parse_shared(std::string_view value) {
  if (const auto shared = parse_yes_no(value)) {
    return *shared;
  }
  return tl::unexpected(invalid("shared is neither yes nor no"));
}

Result<std::uint32_t> parse_sector_size(std::string_view value) {
  if (value == "512" || value == "4096") {
    return value == "512" ? 512 : 4096;
  }
  return tl::unexpected(invalid("sector_size is neither 512 nor 4096"));
}

// A key behind '?', and how its value gets into the settings.
struct SettingKey {
  std::string_view key;
  Result<void> (*take)(const SettingKey& key, std::string_view value, DiskSettings& settings);
  std::chrono::milliseconds least{};  // of a time
};

template <auto kParse, auto kMember>
constexpr SettingKey parsed_by(std::string_view key) {
  return {key, [](const SettingKey&, std::string_view value, DiskSettings& settings) {
            return kParse(value).map([&](const auto& parsed) { settings.*kMember = parsed; });
          }};
}

// As in the configuration file.
constexpr std::chrono::milliseconds kLeastTime{100};

template <auto kMember>
constexpr SettingKey seconds(std::string_view key, std::chrono::milliseconds least = kLeastTime) {
  return {key,
          [](const SettingKey& self, std::string_view value, DiskSettings& settings) {
            constexpr std::chrono::seconds kMost{3600};
            settings.*kMember = parse_decimal_seconds(value);
            if (!(settings.*kMember >= self.least) || *(settings.*kMember) > kMost) {
              return Result<void>(tl::unexpected(
                  invalid(fmt::format("{} is not a number of seconds from {} to {}", self.key,
                                      self.least.count() == 0 ? "0" : "0.1", kMost.count()))));
            }
            return Result<void>();
          },
          least};
}

// Taken together, by parse_prio().
constexpr SettingKey of_prio(std::string_view key) {
  return {key, [](const SettingKey&, std::string_view, DiskSettings&) { return Result<void>(); }};
}

using Settings = DiskSettings;
constexpr SettingKey kSettingKeys[] = {
    parsed_by<&parse_path_grouping_policy, &Settings::path_grouping_policy>("path_grouping_policy"),
    parsed_by<&parse_written_selector, &Settings::path_selector>("path_selector"),
    parsed_by<&parse_rr_min_io, &Settings::rr_min_io>("rr_min_io"),
    of_prio("prio"),
    of_prio("prio_args"),
    parsed_by<&parse_failback, &Settings::failback>("failback"),
    parsed_by<&check_no_path_retry, &Settings::no_path_retry>("no_path_retry"),
    seconds<&Settings::polling_interval>("polling_interval"),
    seconds<&Settings::checker_timeout>("checker_timeout"),
    seconds<&Settings::login_timeout>("login_timeout"),
    seconds<&Settings::logout_timeout>("logout_timeout"),
    seconds<&Settings::noop_out_interval>("noop_out_interval", {}),
    seconds<&Settings::noop_out_timeout>("noop_out_timeout"),
    parsed_by<&parse_shared, &Settings::shared>("shared"),
    parsed_by<&parse_sector_size, &Settings::sector_size>("sector_size"),
    parsed_by<&parse_written_wwid, &Settings::wwid>("wwid"),
};

// number: of the setting, 1 is the first.
Error unknown_setting(std::size_t number) {
  std::string known;
  for (const SettingKey& each : kSettingKeys) {
    const bool is_last = &each == std::end(kSettingKeys) - 1;
    known += (known.empty() ? "" : is_last ? " and " : ", ") + std::string(each.key);
  }
  return invalid(fmt::format("setting {} behind '?' is unknown; known are {}", number, known));
}

Result<DiskSettings> parse_settings(std::string_view query) {
  DiskSettings settings;
  std::map<std::string_view, std::string_view> seen;
  const auto value_of = [&](std::string_view key) {
    const auto found = seen.find(key);
    return found == seen.end() ? std::nullopt : std::optional(found->second);
  };
  for (const std::string_view item : split(query, '&')) {
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return tl::unexpected(invalid(
          fmt::format("setting {} behind '?' is not of the form key=value", seen.size() + 1)));
    }
    const std::string_view key = item.substr(0, equals);
    const std::string_view value = item.substr(equals + 1);
    const auto known = std::find_if(std::begin(kSettingKeys), std::end(kSettingKeys),
                                    [&](const SettingKey& each) { return each.key == key; });
    if (known == std::end(kSettingKeys)) {
      return tl::unexpected(unknown_setting(seen.size() + 1));
    }
    if (auto taken = known->take(*known, value, settings); !taken) {
      return tl::unexpected(taken.error());
    }
    if (!seen.emplace(key, value).second) {
      return tl::unexpected(invalid(fmt::format("{} is set twice", key)));
    }
  }
  if (auto taken = parse_prio(value_of("prio"), value_of("prio_args"), settings); !taken) {
    return tl::unexpected(taken.error());
  }
  return settings;
}

Error too_many_names() {
  return invalid(fmt::format("more than {} target names are given", kMaxTargetNamesPerDisk));
}

// HOST[:PORT][,...]/TARGET-NAME[;HOST.../TARGET-NAME...]/LUN
Result<DiskUrl> parse_url_body(std::string_view text) {
  DiskUrl target;
  if (text.find('/') == std::string_view::npos) {
    return tl::unexpected(
        invalid("the target name and the LUN are missing: the form is "
                "iscsi://HOST[:PORT][,HOST...]/TARGET-NAME/LUN"));
  }
  const std::size_t lun_at = text.rfind('/');
  const auto parts = split(text.substr(0, lun_at), ';');
  if (parts.size() > kMaxTargetNamesPerDisk) {
    return tl::unexpected(too_many_names());
  }
  std::size_t number = 0;
  for (const std::string_view part : parts) {
    ++number;
    const std::size_t name_at = part.find('/');
    auto portals = parse_portals(part.substr(0, name_at), target.portals.size(), parts.size() == 1);
    if (!portals) {
      return tl::unexpected(portals.error());
    }
    if (name_at == std::string_view::npos) {
      return tl::unexpected(invalid(parts.size() == 1
                                        ? "the LUN is missing: the form is "
                                          "iscsi://HOST[:PORT][,HOST...]/TARGET-NAME/LUN"
                                        : "a target name is missing: the form is "
                                          "iscsi://HOST/TARGET-NAME;HOST/TARGET-NAME.../LUN"));
    }
    auto name = parse_target_name(part.substr(name_at + 1));
    if (!name) {
      return tl::unexpected(in_part(name.error(), "target name", number, parts.size() == 1));
    }
    if (target.portals.empty()) {
      target.target_name = *name;
    }
    for (Portal& portal : *portals) {
      if (!same_iscsi_name(*name, target.target_name)) {
        portal.target_name = *name;
      }
      if (auto added = add_portal(target.portals, std::move(portal)); !added) {
        return tl::unexpected(added.error());
      }
    }
  }
  const auto lun = parse_lun(text.substr(lun_at + 1));
  if (!lun) {
    return tl::unexpected(lun.error());
  }
  target.lun = *lun;
  return target;
}

// TARGET-NAME[;TARGET-NAME...][/LUN] or ALIAS
Result<DiskUrl> parse_name_body(std::string_view text) {
  DiskUrl target;
  if (is_target_name_type(text)) {
    const std::size_t lun_at = text.rfind('/');
    const auto parts = split(text.substr(0, lun_at), ';');
    std::size_t number = 0;
    for (const std::string_view part : parts) {
      ++number;
      auto name = parse_target_name(part);
      if (!name) {
        return tl::unexpected(in_part(name.error(), "target name", number, parts.size() == 1));
      }
      if (!add_target_name(*name, target.target_name, target.other_target_names)) {
        return tl::unexpected(invalid(fmt::format("the target name {} is given twice", *name)));
      }
      if (target.other_target_names.size() == kMaxTargetNamesPerDisk) {
        return tl::unexpected(too_many_names());
      }
    }
    if (lun_at != std::string_view::npos) {
      const auto lun = parse_lun(text.substr(lun_at + 1));
      if (!lun) {
        return tl::unexpected(lun.error());
      }
      target.lun = *lun;
    }
    return target;
  }
  if (!is_alias(text)) {
    return tl::unexpected(invalid(
        "behind iscsi: stands neither //HOST/TARGET-NAME/LUN, nor a target name, nor an alias"));
  }
  target.alias = std::string(text);
  return target;
}

}  // namespace

Result<void> check_iscsi_name(std::string_view what, std::string_view name) {
  if (!is_target_name_type(name)) {
    return tl::unexpected(
        invalid(fmt::format("{} does not begin with iqn., eui. or naa. (RFC 7143 4.2.7)", what)));
  }
  if (name.size() <= 4 || name.size() > kMaxIscsiNameBytes) {
    return tl::unexpected(invalid(fmt::format("{} has {} bytes, 5 to {} are allowed", what,
                                              name.size(), kMaxIscsiNameBytes)));
  }
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f) {
      return tl::unexpected(
          invalid(fmt::format("{} contains a blank or a control character", what)));
    }
  }
  if (name.find_first_of(",=") != std::string_view::npos) {
    return tl::unexpected(invalid(
        fmt::format("{} contains a comma or '=', which no iSCSI name has (RFC 3722)", what)));
  }
  return {};
}

bool add_target_name(std::string name, std::string& first, std::vector<std::string>& others) {
  if (first.empty()) {
    first = std::move(name);
    return true;
  }
  const auto is_it = [&](const std::string& other) { return same_iscsi_name(name, other); };
  if (is_it(first) || std::any_of(others.begin(), others.end(), is_it)) {
    return false;
  }
  others.push_back(std::move(name));
  return true;
}

bool is_alias(std::string_view text) {
  return !text.empty() && text.size() <= kMaxAliasBytes && !is_target_name_type(text) &&
         std::all_of(text.begin(), text.end(), is_host_character);
}

std::optional<bool> parse_yes_no(std::string_view text) {
  const bool yes = equal_text(text, "yes") || equal_text(text, "true");
  return yes || equal_text(text, "no") || equal_text(text, "false") ? std::optional(yes)
                                                                    : std::nullopt;
}

Result<Portal> parse_portal(std::string_view text) {
  auto parsed = parse_portal_text(text, UnbracketedPort::refuse);
  if (!parsed) {
    return tl::unexpected(parsed.error());
  }
  Portal portal;
  portal.host = std::move(parsed->host);
  portal.port = parsed->port.value_or(portal.port);
  return portal;
}

Result<PathGroupingPolicy> parse_path_grouping_policy(std::string_view text) {
  if (const auto policy = path_grouping_policy_named(text)) {
    return *policy;
  }
  return tl::unexpected(invalid(fmt::format("path_grouping_policy {}", kNoPathGroupingPolicy)));
}

Result<PathSelectorKind> parse_path_selector(std::string_view text) {
  if (const auto kind = path_selector_named(text)) {
    return *kind;
  }
  return tl::unexpected(invalid(fmt::format("path_selector {}", kNoPathSelector)));
}

Result<std::string> parse_wwid(std::string_view text) {
  // VPD 0x83: a designator has 255 bytes at most, before which vendor and product may stand. As
  // text, a byte that is not printable is \xNN.
  constexpr std::size_t kDesignatorBytes = 255;
  constexpr std::size_t kProductBytes = 24;
  const bool hexadecimal = text.starts_with('2') || text.starts_with('3');
  const bool with_product = text.starts_with('0') || text.starts_with('S');
  const std::size_t most_bytes =
      1 + (hexadecimal ? kDesignatorBytes
                       : 4 * (kDesignatorBytes + (with_product ? kProductBytes : 0)));
  std::string wwid = hexadecimal ? lower(text) : printable_identity_as_written(text);
  const bool right =
      wwid.size() >= 2 && wwid.size() <= most_bytes &&
      std::string_view("01238S").find(wwid.front()) != std::string_view::npos &&
      (hexadecimal ? std::all_of(wwid.begin(), wwid.end(), [](char c) { return hex_digit(c) >= 0; })
                   : !wwid.ends_with("\\x00"));  // padding
  if (!right) {
    return tl::unexpected(
        invalid("wwid is no identity of a LUN as iscsi-blkctl ll or scsi_id shows it, such as "
                "36001405abcdef0123456789abcdef012"));
  }
  return wwid;
}

bool is_iscsi_params(std::string_view params) {
  return take_apart(params).has_value();
}

Result<DiskUrl> parse_disk_url(std::string_view params) {
  const auto written = take_apart(params);
  if (!written) {
    return tl::unexpected(invalid("the target does not begin with iscsi:"));
  }
  const std::string_view text = written->target;
  if (contains_secret(text)) {
    return tl::unexpected(
        invalid("the target contains credentials, which others could read there; "
                "put them into the configuration file instead"));
  }
  if (params.size() > kMaxParamsBytes) {
    return tl::unexpected(invalid(fmt::format("the target has {} bytes, at most {} are allowed",
                                              params.size(), kMaxParamsBytes)));
  }
  if (auto checked = check_writing(*written); !checked) {
    return tl::unexpected(checked.error());
  }
  const std::size_t query_at = text.find('?');
  std::string_view body = text.substr(0, query_at);
  auto target = body.starts_with("//") ? parse_url_body(body.substr(2)) : parse_name_body(body);
  if (!target || query_at == std::string_view::npos) {
    return target;
  }
  auto settings = parse_settings(text.substr(query_at + 1));
  if (!settings) {
    return tl::unexpected(settings.error());
  }
  target->settings = std::move(*settings);
  return target;
}

Result<WrittenNoPathRetry> parse_no_path_retry(std::string_view text) {
  if (text == "queue") {
    return WrittenNoPathRetry{.time = std::nullopt};
  }
  if (text == "fail") {
    return WrittenNoPathRetry{};
  }
  constexpr unsigned kMost = 86400;
  if (text.ends_with('s')) {
    const auto seconds = parse_decimal_seconds(text.substr(0, text.size() - 1));
    if (seconds && *seconds <= std::chrono::seconds(kMost)) {
      return WrittenNoPathRetry{.time = *seconds};
    }
  } else if (const auto checks = parse_number<unsigned>(text, 0, kMost)) {
    return WrittenNoPathRetry{.checks = *checks};
  }
  return tl::unexpected(
      invalid("no_path_retry is neither queue, fail, a number of checks (0, which is fail, to "
              "86400), nor a number of seconds with an s behind it"));
}

}  // namespace iscsi_blkback
