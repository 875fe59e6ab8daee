// PathPolicies: how a disk's paths are grouped, ordered and chosen. Each setting may be left open:
// then the row of the array table that fits the LUN decides, then what the LUN says of itself, then
// the default. Constant data and pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "multipath/groups/path_group.h"
#include "multipath/groups/path_rules.h"
#include "multipath/groups/path_selector.h"
#include "multipath/groups/prioritizer.h"
#include "multipath/path/path_checker.h"

namespace iscsi_blkback {

// When the best group is used again after a worse one has been in use.
struct Failback {
  enum class Kind : std::uint8_t {
    manual,      // when the one in use has failed
    immediate,   // as soon as one of its paths is up
    followover,  // when the first of its paths comes up after all were down
    after,       // when it has been the best for so long, without a path lost meanwhile
  };
  Kind kind = Kind::manual;
  std::chrono::seconds delay{};

  bool operator==(const Failback&) const = default;
};

[[nodiscard]] std::string to_string(const Failback& failback);
// "immediate", "manual", "followover" or a number of seconds (1 to 3600). The error is a sentence.
[[nodiscard]] Result<Failback> parse_failback(std::string_view text);

// How long requests wait while there is no path. nullopt: for ever (queue); 0: not at all (fail).
using NoPathRetry = std::optional<std::chrono::milliseconds>;

// Whether a login through one portal of the target ends what the same session had left at another
// one with the same portal group tag, as RFC 7143 6.3.5 wants it. Several nodes that serve a disk
// under one target name, and number their groups alike, do not do that for each other.
enum class PortalGroupFences : std::uint8_t {
  no,
  trial,  // where a trial has shown it (portal_group_trial.h)
  yes,    // the operator says so: the target is one system
};

[[nodiscard]] const char* to_string(PortalGroupFences fences);

enum class RrWeight : std::uint8_t { uniform, priorities };

struct PathPolicySettings {
  std::optional<PathGroupingPolicy> path_grouping_policy;
  std::optional<PathSelectorKind> path_selector;
  std::optional<std::uint32_t> rr_min_io;
  std::optional<RrWeight> rr_weight;
  std::optional<Prioritizer> prio;
  std::optional<Failback> failback;
  // How often and how far apart the activation of a ghost path is tried.
  std::optional<std::uint32_t> pg_init_retries;
  std::optional<std::chrono::milliseconds> pg_init_delay;
  std::optional<PathCheckerKind> path_checker;
  std::optional<NoPathRetry> no_path_retry;
  std::optional<PortalGroupFences> portal_group_fences;
};

// What is set in changes replaces what is in settings.
void overrule(const PathPolicySettings& changes, PathPolicySettings& settings);

// A kind of array. Patterns as in PathRule, over what INQUIRY says; empty: anything.
struct ArrayRow {
  std::string vendor;
  std::string product;
  std::string revision;
  PathPolicySettings policies;
  bool prio_without_alua = false;  // its prio is only for LUNs that do not report ALUA
};
using ArrayTable = std::vector<ArrayRow>;  // a later row that fits overrules the ones before it

// All decided.
struct PathPolicies {
  PathGroupingPolicy path_grouping_policy = PathGroupingPolicy::multibus;
  PathSelectorKind path_selector = PathSelectorKind::round_robin;
  std::uint32_t rr_min_io = 1;
  RrWeight rr_weight = RrWeight::uniform;
  Prioritizer prio;
  Failback failback;
  std::uint32_t pg_init_retries = 5;
  std::chrono::milliseconds pg_init_delay{2000};
  PathCheckerKind path_checker = PathCheckerKind::tur;
  NoPathRetry no_path_retry;
  PortalGroupFences portal_group_fences = PortalGroupFences::no;
};

// identity: what the LUN says of itself; nullptr before it has said anything.
[[nodiscard]] PathPolicies decide_policies(const PathPolicySettings& settings,
                                           const ArrayTable* arrays,
                                           const LogicalUnitIdentity* identity);

}  // namespace iscsi_blkback
