// Prioritizer: a path's priority, from what the LUN tells about it, where it leads, or how fast it
// answers. The names and numbers are those of multipath-tools' prioritizers. Pure functions;
// reading what they need is the path's affair (LogicalUnitAccess).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/groups/path_rules.h"
#include "multipath/path/latency_estimate.h"

namespace iscsi_blkback {

enum class PrioritizerKind : std::uint8_t {
  constant,          // "const"
  alua,              // of the port's access state: 50, 10, 5, 1, 0, and 80 more when preferred
  rdac,              // owned 2, preferred controller 4 or the other 1, both serve it 8
  emc,               // LUN state, and 2 for the default service processor
  weighted,          // "weightedpath": by rules on portal, interface and target
  preferred_portal,  // "iet": 20 for preferredip, 10 for the others
  path_latency,      // of what the path's reads and writes take
};

struct Prioritizer {
  PrioritizerKind kind = PrioritizerKind::constant;
  // prio_args
  bool exclusive_pref_bit = false;   // alua: preferred counts even when active/optimized
  std::vector<PathRule> rules;       // weighted
  std::string preferred_ip;          // preferred_portal
  double base_number = 1.778279410;  // path_latency: a level is so many times slower; 10^(1/4)

  bool operator==(const Prioritizer&) const = default;
};

[[nodiscard]] const char* to_string(PrioritizerKind kind);  // "const"
// Behind the option's name, of any other.
inline constexpr const char* kNoPrioritizer =
    "is none of const, alua, rdac, emc, weightedpath, iet and path_latency";
// multipath.conf's names ("sysfs" is alua); nullopt for others.
[[nodiscard]] std::optional<PrioritizerKind> prioritizer_named(std::string_view name);
// arguments: prio_args, one each. The error is a sentence.
[[nodiscard]] Result<Prioritizer> make_prioritizer(PrioritizerKind kind,
                                                   std::span<const std::string> arguments);

// What a prioritizer's arguments must be, as the end of a sentence: "it takes none".
[[nodiscard]] const char* arguments_wanted(PrioritizerKind kind);

[[nodiscard]] int alua_priority(AccessState state, bool preferred, bool exclusive_pref_bit);
[[nodiscard]] int rdac_priority(const RdacVolumeAccess& access);
[[nodiscard]] int emc_priority(const EmcUnitPath& path);
[[nodiscard]] int latency_priority(Duration latency, double base_number);

// Whether priorities change by themselves, so that they are read again and again.
[[nodiscard]] bool is_dynamic(PrioritizerKind kind);
// nullopt: what it depends on is not known (yet).
[[nodiscard]] std::optional<int> path_priority(const Prioritizer& prioritizer,
                                               const LogicalUnitAccess& access,
                                               const PathPlace& place,
                                               const LatencyEstimate& latency);

}  // namespace iscsi_blkback
