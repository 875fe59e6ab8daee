#include "multipath/groups/prioritizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/byte_stream.h"
#include "base/words.h"

namespace iscsi_blkback {
namespace {

constexpr Word<PrioritizerKind> kPrioritizerWords[] = {
    {"const", PrioritizerKind::constant},
    {"alua", PrioritizerKind::alua},
    {"sysfs", PrioritizerKind::alua},  // the same numbers, read another way
    {"rdac", PrioritizerKind::rdac},
    {"emc", PrioritizerKind::emc},
    {"weightedpath", PrioritizerKind::weighted},
    {"iet", PrioritizerKind::preferred_portal},
    {"path_latency", PrioritizerKind::path_latency},
};

constexpr std::uint32_t kMaxPriority = 1000;
constexpr int kPreferred = 80;

tl::unexpected<Error> refused(PrioritizerKind kind, std::string_view argument) {
  return fail(ErrorCode::invalid_argument,
              fmt::format("prio_args \"{}\" is nothing that prio {} knows: {}", argument,
                          to_string(kind), arguments_wanted(kind)));
}

Result<void> take_argument(std::string_view argument, Prioritizer& result) {
  switch (result.kind) {
    case PrioritizerKind::alua:
      if (argument != "exclusive_pref_bit") {
        return refused(result.kind, argument);
      }
      result.exclusive_pref_bit = true;
      return {};
    case PrioritizerKind::weighted: {
      auto rule = parse_path_rule(argument, kMaxPriority);
      if (!rule) {
        return fail(ErrorCode::invalid_argument, "prio_args " + rule.error().message);
      }
      result.rules.push_back(std::move(*rule));
      return {};
    }
    case PrioritizerKind::preferred_portal: {
      constexpr std::string_view kName = "preferredip=";
      const auto address =
          argument.starts_with(kName) && result.preferred_ip.empty()
              ? SocketAddress::parse(std::string(argument.substr(kName.size())), 0)
              : Result<SocketAddress>(fail(ErrorCode::invalid_argument, "no address"));
      if (!address) {
        return refused(result.kind, argument);
      }
      // An IPv6 address may be written in many ways; paths have theirs as to_string() writes it.
      result.preferred_ip = host_of(address->to_string());
      return {};
    }
    case PrioritizerKind::path_latency: {
      constexpr std::string_view kName = "base_num=";
      const std::string_view number =
          argument.starts_with(kName) ? argument.substr(kName.size()) : std::string_view();
      const auto [end, error] =
          std::from_chars(number.data(), number.data() + number.size(), result.base_number);
      if (number.empty() || error != std::errc() || end != number.data() + number.size() ||
          !(result.base_number >= 1.1 && result.base_number <= 10)) {
        return refused(result.kind, argument);
      }
      return {};
    }
    case PrioritizerKind::constant:
    case PrioritizerKind::rdac:
    case PrioritizerKind::emc:
      break;
  }
  return refused(result.kind, argument);
}

}  // namespace

const char* to_string(PrioritizerKind kind) {
  return word_for<kPrioritizerWords>(kind);
}

const char* arguments_wanted(PrioritizerKind kind) {
  switch (kind) {
    case PrioritizerKind::alua:
      return "it takes \"exclusive_pref_bit\"";
    case PrioritizerKind::weighted:
      return "it takes rules \"portal PATTERN NUMBER\", \"interface PATTERN NUMBER\" and \"target "
             "PATTERN NUMBER\"";
    case PrioritizerKind::preferred_portal:
      return "it takes one \"preferredip=ADDRESS\" with a numeric address";
    case PrioritizerKind::path_latency:
      return "it takes \"base_num=NUMBER\" with a number from 1.1 to 10";
    case PrioritizerKind::constant:
    case PrioritizerKind::rdac:
    case PrioritizerKind::emc:
      break;
  }
  return "it takes none";
}

std::optional<PrioritizerKind> prioritizer_named(std::string_view name) {
  return named<kPrioritizerWords>(name);
}

Result<Prioritizer> make_prioritizer(PrioritizerKind kind, std::span<const std::string> arguments) {
  Prioritizer result;
  result.kind = kind;
  for (const std::string& argument : arguments) {
    if (auto taken = take_argument(argument, result); !taken) {
      return tl::unexpected(taken.error());
    }
  }
  if (kind == PrioritizerKind::weighted && result.rules.empty()) {
    return fail(ErrorCode::invalid_argument,
                "prio weightedpath needs prio_args like [\"portal 192.0.2.* 50\"]");
  }
  if (kind == PrioritizerKind::preferred_portal && result.preferred_ip.empty()) {
    return fail(ErrorCode::invalid_argument, "prio iet needs prio_args = \"preferredip=ADDRESS\"");
  }
  return result;
}

int alua_priority(AccessState state, bool preferred, bool exclusive_pref_bit) {
  int priority = 0;
  switch (state) {
    case AccessState::active_optimized:
      return 50 + (preferred && exclusive_pref_bit ? kPreferred : 0);
    case AccessState::active_non_optimized:
      priority = 10;
      break;
    case AccessState::block_dependent:
      priority = 5;
      break;
    case AccessState::standby:
      priority = 1;
      break;
    case AccessState::unavailable:
    case AccessState::offline:
    case AccessState::transitioning:
      break;
  }
  return priority + (preferred ? kPreferred : 0);
}

int rdac_priority(const RdacVolumeAccess& access) {
  const int preference = access.preference == 1 ? 4 : access.preference == 2 ? 1 : 0;
  return preference + (access.owned ? 2 : 0) + (access.shared ? 8 : 0);
}

int emc_priority(const EmcUnitPath& path) {
  return path.lun_state + (path.default_owner ? 2 : 0);
}

// multipath-tools' scale: how many levels below 100 seconds.
int latency_priority(Duration latency, double base_number) {
  constexpr double kMostMicroseconds = 1e8;
  const double microseconds = std::clamp(std::chrono::duration<double, std::micro>(latency).count(),
                                         1.0, kMostMicroseconds);
  constexpr double kRounding = 1e-9;  // a whole level is not to be lost to it
  return static_cast<int>(std::log(kMostMicroseconds / microseconds) / std::log(base_number) +
                          kRounding);
}

bool is_dynamic(PrioritizerKind kind) {
  switch (kind) {
    case PrioritizerKind::alua:
    case PrioritizerKind::rdac:
    case PrioritizerKind::emc:
    case PrioritizerKind::path_latency:
      return true;
    case PrioritizerKind::constant:
    case PrioritizerKind::weighted:
    case PrioritizerKind::preferred_portal:
      return false;
  }
  return false;
}

std::optional<int> path_priority(const Prioritizer& prioritizer, const LogicalUnitAccess& access,
                                 const PathPlace& place, const LatencyEstimate& latency) {
  switch (prioritizer.kind) {
    case PrioritizerKind::constant:
      return 1;
    case PrioritizerKind::alua:
      if (const TargetPortGroup* group = access.group()) {
        return alua_priority(group->state, group->preferred, prioritizer.exclusive_pref_bit);
      }
      return std::nullopt;
    case PrioritizerKind::rdac:
      return access.rdac ? std::optional(rdac_priority(*access.rdac)) : std::nullopt;
    case PrioritizerKind::emc:
      return access.emc ? std::optional(emc_priority(*access.emc)) : std::nullopt;
    case PrioritizerKind::weighted:
      return static_cast<int>(value_for(place, prioritizer.rules, 0));
    case PrioritizerKind::preferred_portal: {
      constexpr int kPreferredPortal = 20;
      constexpr int kOtherPortal = 10;
      const PathRule rule{PathRule::Key::portal, prioritizer.preferred_ip, 0};
      return fits(rule, place) ? kPreferredPortal : kOtherPortal;
    }
    case PrioritizerKind::path_latency:
      if (const auto mean = latency.mean()) {
        return latency_priority(*mean, prioritizer.base_number);
      }
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace iscsi_blkback
