#include "base/decimal.h"
#include "tools/config/config_reader_impl.h"

namespace iscsi_blkback {
namespace {

// A word, or a number in its place. expected: for the sentence about what is neither.
Result<std::string> word_or_number_of(const ConfigurationEntry& entry, const char* expected) {
  if (const auto* number = entry.value->as_integer()) {
    return fmt::format("{}", number->get());
  }
  if (const auto* string = entry.value->as_string()) {
    return string->get();
  }
  return refuse_type(entry, expected);
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) {
      return words;
    }
    words.push_back(text.substr(0, text.find(' ')));
    text.remove_prefix(words.back().size());
  }
}

}  // namespace

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

Result<void> ConfigurationReader::set(const SecondsSetting& kind, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto value = seconds_of(entry, kind.least, kind.most);
  if (!value) {
    return tl::unexpected(value.error());
  }
  std::visit([&](auto member) { settings.owner_of(member).*member = *value; }, kind.member);
  return {};
}

Result<void> ConfigurationReader::set(const WholeSetting& kind, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const YesNoSetting& kind, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto value = yes_no_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  std::visit([&](auto member) { settings.owner_of(member).*member = *value; }, kind.member);
  return {};
}

Result<void> ConfigurationReader::set(const PortalGroupFencesSetting&,
                                      const ConfigurationEntry& entry, Settings& settings) const {
  std::optional<PortalGroupFences>& fences = settings.multipath.portal_group_fences;
  const auto* word = entry.value->as_string();
  if (word != nullptr && word->get() == "Trial") {
    fences = PortalGroupFences::trial;
    return {};
  }
  const auto value = yes_no_of(entry);
  if (!value) {
    return refuse(entry,
                  fmt::format("{} must be true, false, \"Yes\", \"No\" or \"Trial\"", entry.name));
  }
  fences = *value ? PortalGroupFences::yes : PortalGroupFences::no;
  return {};
}

Result<void> ConfigurationReader::set(const FixedSetting& kind, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const AliasSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  auto alias = alias_of(entry);
  if (!alias) {
    return tl::unexpected(alias.error());
  }
  settings.session.initiator_alias = std::move(*alias);
  return {};
}

Result<void> ConfigurationReader::set(const DigestSetting& kind, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const AuthMethodSetting& kind,
                                      const ConfigurationEntry& entry, Settings& settings) const {
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

Result<void> ConfigurationReader::set(const ChapAlgorithmsSetting& kind,
                                      const ConfigurationEntry& entry, Settings& settings) const {
  const auto words = text_of(entry);
  if (!words) {
    return tl::unexpected(words.error());
  }
  std::vector<ChapAlgorithm> algorithms;
  std::string_view rest = *words;
  while (true) {
    const std::size_t comma = rest.find(',');
    std::string_view word = rest.substr(0, comma);
    word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
    const auto algorithm = parse_chap_algorithm(word.substr(0, word.find_last_not_of(' ') + 1));
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

Result<void> ConfigurationReader::set(const CredentialSetting& kind,
                                      const ConfigurationEntry& entry, Settings& settings) const {
  auto value = text_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  if (value->empty()) {
    return refuse(entry, fmt::format("{} must not be empty", entry.name));
  }
  ChapOptions& chap = settings.session.*kind.chap;
  std::visit([&](auto member) { chap.*member = *value; }, kind.member);
  return {};
}

Result<void> ConfigurationReader::set(const InterfaceSetting& kind, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  InterfaceBinding part;
  if (auto done = read_interface_part(entry, kind.member, part); !done) {
    return done;
  }
  settings.interface.*kind.member = part.*kind.member;
  settings.paths.interfaces = {settings.interface};
  return {};
}

Result<void> ConfigurationReader::set(const InterfacesSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  auto list = interfaces_of(entry);
  if (!list) {
    return tl::unexpected(list.error());
  }
  settings.paths.interfaces = std::move(*list);
  return {};
}

Result<void> ConfigurationReader::set(const MarginalSetting& kind, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  // multipath.conf's word for 0.
  const auto* word = entry.value->as_string();
  if (word != nullptr && word->get() == "no") {
    if (kind.least.count() != 0) {
      return refuse(entry, fmt::format("{} is for paths that fail again and again: where there are "
                                       "none to be, marginal_path_double_failed_time is \"no\"",
                                       entry.name));
    }
    settings.multipath.marginal.*(kind.member) = Milliseconds(0);
    return {};
  }
  const auto time = seconds_of(entry, kind.least, std::chrono::hours(1));
  if (!time) {
    return tl::unexpected(time.error());
  }
  settings.multipath.marginal.*(kind.member) = *time;
  return {};
}

Result<void> ConfigurationReader::set(const WordSetting& kind, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const PrioritizerSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto word = text_of(entry);
  if (!word) {
    return tl::unexpected(word.error());
  }
  settings.prio = prioritizer_named(*word);
  if (!settings.prio) {
    return refuse(entry, kPrioritizerNames);
  }
  return {};
}

Result<void> ConfigurationReader::set(const PrioArgumentsSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  auto words = texts_of(entry);
  if (!words) {
    return tl::unexpected(words.error());
  }
  if (words->size() == 1 && words->front().empty()) {
    words->clear();  // multipath.conf's default
  }
  settings.prio_args = std::move(*words);
  return {};
}

Result<void> ConfigurationReader::set(const FailbackSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto word =
      word_or_number_of(entry, "\"immediate\", \"manual\", \"followover\" or a number of seconds");
  if (!word) {
    return tl::unexpected(word.error());
  }
  const auto failback = parse_failback(*word);
  if (!failback) {
    return refuse(entry, failback.error().message);
  }
  settings.multipath.failback = *failback;
  return {};
}

Result<void> ConfigurationReader::set(const RrWeightSetting&, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const PathWeightsSetting&, const ConfigurationEntry& entry,
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

Result<void> ConfigurationReader::set(const PgInitDelaySetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto value = seconds_of(entry, Milliseconds(10), Milliseconds(60000));
  if (!value) {
    return tl::unexpected(value.error());
  }
  settings.multipath.pg_init_delay = *value;
  return {};
}

Result<void> ConfigurationReader::set(const NoPathRetrySetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  auto word =
      word_or_number_of(entry, "\"queue\", \"fail\", a number of checks, or seconds like \"30s\"");
  if (!word) {
    return tl::unexpected(word.error());
  }
  if (auto parsed = parse_no_path_retry(*word, Milliseconds(1000)); !parsed) {
    return refuse(entry, parsed.error().message);
  }
  settings.no_path_retry = std::move(*word);
  return {};
}

Result<void> ConfigurationReader::set(const FeaturesSetting&, const ConfigurationEntry& entry,
                                      Settings& settings) const {
  const auto text = text_of(entry);
  if (!text) {
    return tl::unexpected(text.error());
  }
  const std::vector<std::string_view> words = words_of(*text);
  const auto count = words.empty() ? std::nullopt : parse_decimal<std::size_t>(words[0]);
  if (!count || *count != words.size() - 1) {
    return refuse(
        entry,
        "features does not begin with the number of words that follow, as in \"0\" or \"1 "
        "queue_if_no_path\"");
  }
  const auto sets = [&](std::string_view name) -> Result<void> {
    if (const auto [set, first] = settings.lines.emplace(name, entry.line); !first) {
      return refuse(entry, fmt::format("features sets {}, and so does line {}", name, set->second));
    }
    settings.places.insert_or_assign(name, Place{entry.line, settings.section});
    return {};
  };
  for (std::size_t at = 1; at < words.size(); ++at) {
    const std::string_view word = words[at];
    if (word == "queue_if_no_path") {
      if (auto done = sets("no_path_retry"); !done) {
        return done;
      }
      settings.no_path_retry = "queue";
      continue;
    }
    // multipathd takes it out as well, for an option that a LUN needs nobody to set.
    if (word == "retain_attached_hw_handler") {
      continue;
    }
    if (word == "queue_mode") {
      return refuse(entry,
                    "features queue_mode has no meaning here: there is no queue of the kernel's");
    }
    const bool retries = word == "pg_init_retries";
    if (!retries && word != "pg_init_delay_msecs") {
      return refuse(entry,
                    fmt::format("features knows queue_if_no_path, pg_init_retries NUMBER and "
                                "pg_init_delay_msecs NUMBER here, not {}",
                                word));
    }
    const std::uint32_t least = retries ? 1 : 10;
    const std::uint32_t most = retries ? 50 : 60000;
    const auto number =
        at + 1 < words.size() ? parse_decimal<std::uint32_t>(words[at + 1]) : std::nullopt;
    if (!number || *number < least || *number > most) {
      return refuse(
          entry, fmt::format("features needs a number from {} to {} behind {}", least, most, word));
    }
    ++at;
    if (auto done = sets(retries ? "pg_init_retries" : "pg_init_delay"); !done) {
      return done;
    }
    if (retries) {
      settings.multipath.pg_init_retries = *number;
    } else {
      settings.multipath.pg_init_delay = Milliseconds(*number);
    }
  }
  return {};
}

Result<void> ConfigurationReader::apply(const Setting& setting, const ConfigurationEntry& entry,
                                        Settings& settings) const {
  if (!settings.lines.emplace(setting.name, entry.line).second) {
    return refuse(entry, fmt::format("{} is set twice, see line {}", setting.name,
                                     settings.lines[setting.name]));
  }
  settings.places.insert_or_assign(setting.name, Place{entry.line, settings.section});
  return std::visit([&](const auto& kind) { return set(kind, entry, settings); }, setting.kind);
}

}  // namespace iscsi_blkback
