#include "blkback/process/control_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kStatus = "status";

// The line's words; those that are not there, or no strings, are empty.
struct Words {
  std::string command;
  std::uint32_t device_id = 0;
  std::string setting;
  std::string value;
  std::string portal;
  std::string target;
};

Result<Words> parse_words(const std::string& line) {
  const nlohmann::json request = nlohmann::json::parse(line, nullptr, false);
  if (!request.is_object()) {
    return fail(ErrorCode::invalid_argument, "the request is not a JSON object");
  }
  Words words;
  const auto text = [&request](const char* key, std::string& value) {
    const auto found = request.find(key);
    if (found != request.end() && found->is_string()) {
      value = found->get<std::string>();
    }
  };
  text("command", words.command);
  text("setting", words.setting);
  text("value", words.value);
  text("portal", words.portal);
  text("target", words.target);
  if (words.command.empty()) {
    return fail(ErrorCode::invalid_argument, "the request has no \"command\"");
  }
  if (words.command == kStatus) {
    return words;
  }
  const auto device = request.find("devid");
  if (device == request.end() || !device->is_number_unsigned() ||
      device->get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
    return fail(ErrorCode::invalid_argument, "the request has no \"devid\"");
  }
  words.device_id = device->get<std::uint32_t>();
  return words;
}

using Parsed = Result<DiskChange::What>;

// What a word, of a command or a setting, makes of the others.
struct Meaning {
  std::string_view word;
  Parsed (*parse)(const Words& words);
};

const Meaning* find_meaning(std::span<const Meaning> meanings, std::string_view word) {
  const auto found = std::find_if(meanings.begin(), meanings.end(),
                                  [&](const Meaning& meaning) { return meaning.word == word; });
  return found == meanings.end() ? nullptr : &*found;
}

template <class Change>
Parsed parse_path(const Words& words) {
  if (words.portal.empty()) {
    return fail(ErrorCode::invalid_argument, fmt::format("{} names no portal", words.command));
  }
  auto portal = parse_portal(words.portal);
  if (!portal) {
    return tl::unexpected(portal.error());
  }
  if (!words.target.empty()) {
    if (auto name = check_iscsi_name("the target name", words.target); !name) {
      return tl::unexpected(name.error());
    }
  }
  return Change{{std::move(*portal), words.target}};
}

Parsed parse_waiting(const Words& words) {
  return parse_no_path_retry(words.value).map([](const WrittenNoPathRetry& wait) {
    return DiskChange::What(SetNoPathRetry{wait});
  });
}

template <auto kParse, auto kMember>
Parsed parse_policy(const Words& words) {
  return kParse(words.value).map([](auto policy) {
    SetPolicies change;
    change.policies.*kMember = policy;
    return DiskChange::What(change);
  });
}

using Policies = PathPolicySettings;
constexpr Meaning kSettings[] = {
    {"no_path_retry", parse_waiting},
    {"path_selector", parse_policy<&parse_path_selector, &Policies::path_selector>},
    {"path_grouping_policy",
     parse_policy<&parse_path_grouping_policy, &Policies::path_grouping_policy>},
};

Parsed parse_setting(const Words& words) {
  if (const Meaning* setting = find_meaning(kSettings, words.setting)) {
    return setting->parse(words);
  }
  return fail(ErrorCode::invalid_argument,
              fmt::format("{} cannot be changed while a disk is in use; no_path_retry, "
                          "path_selector and path_grouping_policy can",
                          words.setting));
}

constexpr Meaning kCommands[] = {
    {"disablequeueing", [](const Words&) -> Parsed { return SetNoPathRetry{}; }},
    {"restorequeueing", [](const Words&) -> Parsed { return RestoreNoPathRetry{}; }},
    {"set", parse_setting},
    {"add_path", parse_path<AddPath>},
    {"del_path", parse_path<RemovePath>},
};

}  // namespace

Result<GuestRequest> parse_guest_request(const std::string& line) {
  const auto words = parse_words(line);
  if (!words) {
    return tl::unexpected(words.error());
  }
  if (words->command == kStatus) {
    return StatusRequest{};
  }
  const Meaning* command = find_meaning(kCommands, words->command);
  if (command == nullptr) {
    return fail(ErrorCode::unsupported, "the command is unknown");
  }
  auto what = command->parse(*words);
  if (!what) {
    return tl::unexpected(what.error());
  }
  return DiskChange{words->device_id, std::move(*what)};
}

Result<StatusRequest> parse_service_request(const std::string& line) {
  const auto words = parse_words(line);
  if (!words) {
    return tl::unexpected(words.error());
  }
  if (words->command != kStatus) {
    return fail(ErrorCode::unsupported, "the only command of the service is status");
  }
  return StatusRequest{};
}

}  // namespace iscsi_blkback
