#include "multipath/attach/policy_contradiction.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

std::optional<PolicyContradiction> find_contradiction(const MultipathOptions& options) {
  if (options.exclusive_luns && options.shared) {
    return PolicyContradiction{{"exclusive_luns", "shared"},
                               "exclusive_luns contradicts shared: a LUN that several guests use "
                               "is not to be reset, which would end the commands of them all"};
  }
  if (options.path_grouping_policy == PathGroupingPolicy::group_by_prio && options.prio &&
      options.prio->kind == PrioritizerKind::constant) {
    return PolicyContradiction{
        {"path_grouping_policy", "prio"},
        "path_grouping_policy group_by_prio contradicts prio const, which gives all paths the same "
        "priority: say multibus, or another prio"};
  }
  const PathSelectorKind selector = options.path_selector.value_or(PathSelectorKind::round_robin);
  const bool by_priority = options.rr_weight == RrWeight::priorities;
  if (by_priority && selector != PathSelectorKind::round_robin) {
    return PolicyContradiction{{"rr_weight", "path_selector"},
                               fmt::format("rr_weight priorities is for path_selector round-robin, "
                                           "not {}",
                                           to_string(selector))};
  }
  if (options.rr_min_io.value_or(1) != 1 && selector != PathSelectorKind::round_robin) {
    return PolicyContradiction{
        {"rr_min_io", "path_selector"},
        fmt::format("rr_min_io is for path_selector round-robin, not {}", to_string(selector))};
  }
  if (options.path_weights.empty()) {
    return {};
  }
  if (selector != PathSelectorKind::round_robin && selector != PathSelectorKind::service_time) {
    return PolicyContradiction{{"path_weights", "path_selector"},
                               fmt::format("path_weights is for path_selector service-time and "
                                           "round-robin, not {}",
                                           to_string(selector))};
  }
  if (selector == PathSelectorKind::round_robin &&
      std::any_of(options.path_weights.begin(), options.path_weights.end(),
                  [](const PathRule& rule) { return rule.value == 0; })) {
    return PolicyContradiction{{"path_weights", "path_selector"},
                               "a weight of 0 in path_weights is for path_selector service-time: "
                               "round-robin gives each path a turn"};
  }
  if (by_priority) {
    return PolicyContradiction{{"path_weights", "rr_weight"},
                               "either path_weights or rr_weight priorities may be set, not both"};
  }
  return {};
}

void settle_selector(MultipathOptions& options) {
  if (options.rr_weight == RrWeight::priorities || options.rr_min_io.value_or(1) != 1 ||
      !options.path_weights.empty()) {
    options.path_selector = options.path_selector.value_or(PathSelectorKind::round_robin);
  }
}

}  // namespace iscsi_blkback
