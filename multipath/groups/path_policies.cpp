#include "multipath/groups/path_policies.h"

#include <fmt/format.h>

#include <utility>

#include "base/decimal.h"

namespace iscsi_blkback {
namespace {

constexpr unsigned kMaxFailbackSeconds = 3600;

template <typename T>
void fill(std::optional<T>& open, const std::optional<T>& from) {
  if (!open) {
    open = from;
  }
}

void fill(PathPolicySettings& open, const PathPolicySettings& from) {
  fill(open.path_grouping_policy, from.path_grouping_policy);
  fill(open.path_selector, from.path_selector);
  fill(open.rr_min_io, from.rr_min_io);
  fill(open.rr_weight, from.rr_weight);
  fill(open.prio, from.prio);
  fill(open.failback, from.failback);
  fill(open.pg_init_retries, from.pg_init_retries);
  fill(open.pg_init_delay, from.pg_init_delay);
  fill(open.path_checker, from.path_checker);
  fill(open.no_path_retry, from.no_path_retry);
  fill(open.portal_group_fences, from.portal_group_fences);
}

bool fits(const ArrayRow& row, const LogicalUnitIdentity& identity) {
  const auto matches = [](const std::string& pattern, const std::string& text) {
    return pattern.empty() || matches_pattern(pattern, text);
  };
  return matches(row.vendor, identity.vendor) && matches(row.product, identity.product) &&
         matches(row.revision, identity.revision);
}

}  // namespace

void overrule(const PathPolicySettings& changes, PathPolicySettings& settings) {
  PathPolicySettings result = changes;
  fill(result, settings);
  settings = std::move(result);
}

const char* to_string(PortalGroupFences fences) {
  switch (fences) {
    case PortalGroupFences::no:
      return "no";
    case PortalGroupFences::trial:
      return "trial";
    case PortalGroupFences::yes:
      return "yes";
  }
  return "unknown";
}

std::string to_string(const Failback& failback) {
  switch (failback.kind) {
    case Failback::Kind::manual:
      return "manual";
    case Failback::Kind::immediate:
      return "immediate";
    case Failback::Kind::followover:
      return "followover";
    case Failback::Kind::after:
      return fmt::format("{}", failback.delay.count());
  }
  return "unknown";
}

Result<Failback> parse_failback(std::string_view text) {
  if (text == "manual") {
    return Failback{};
  }
  if (text == "immediate") {
    return Failback{Failback::Kind::immediate, {}};
  }
  if (text == "followover") {
    return Failback{Failback::Kind::followover, {}};
  }
  const auto seconds = parse_decimal<unsigned>(text);
  if (!seconds || *seconds > kMaxFailbackSeconds) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("failback is neither immediate, manual, followover nor a number of "
                            "seconds from 0 (manual) to {}",
                            kMaxFailbackSeconds));
  }
  // multipath-tools (0.9.4, 0.11.1) take 0 for manual.
  return *seconds == 0 ? Failback{}
                       : Failback{Failback::Kind::after, std::chrono::seconds(*seconds)};
}

PathPolicies decide_policies(const PathPolicySettings& settings, const ArrayTable* arrays,
                             const LogicalUnitIdentity* identity) {
  PathPolicySettings merged = settings;
  if (arrays != nullptr && identity != nullptr) {
    for (auto row = arrays->rbegin(); row != arrays->rend(); ++row) {
      if (!fits(*row, *identity)) {
        continue;
      }
      PathPolicySettings policies = row->policies;
      if (row->prio_without_alua && identity->tpgs != 0) {
        policies.prio.reset();
      }
      fill(merged, policies);
    }
  }
  PathPolicies result;
  const auto decide = [](auto& value, const auto& setting) {
    if (setting) {
      value = *setting;
    }
  };
  decide(result.prio, merged.prio);
  if (!merged.prio && identity != nullptr && identity->tpgs != 0) {
    result.prio.kind = PrioritizerKind::alua;
  }
  // With priorities that tell paths apart, they are what groups are for; those that change by
  // themselves are there to be followed.
  const bool has_priorities = result.prio.kind != PrioritizerKind::constant;
  if (has_priorities) {
    result.path_grouping_policy = PathGroupingPolicy::group_by_prio;
  }
  if (is_dynamic(result.prio.kind)) {
    result.failback.kind = Failback::Kind::immediate;
  }
  decide(result.path_grouping_policy, merged.path_grouping_policy);
  decide(result.path_selector, merged.path_selector);
  decide(result.rr_min_io, merged.rr_min_io);
  decide(result.rr_weight, merged.rr_weight);
  decide(result.failback, merged.failback);
  decide(result.pg_init_retries, merged.pg_init_retries);
  decide(result.pg_init_delay, merged.pg_init_delay);
  decide(result.path_checker, merged.path_checker);
  decide(result.no_path_retry, merged.no_path_retry);
  decide(result.portal_group_fences, merged.portal_group_fences);
  return result;
}

}  // namespace iscsi_blkback
