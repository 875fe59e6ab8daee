// What a seed chooses: a plan. A profile is a distribution over plans: which worlds, and how often
// what happens in them; "mixed" draws the profile, too.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/host/plan.h"

namespace iscsi_blkback {

inline constexpr std::string_view kMixedProfile = "mixed";

struct GeneratorOptions {
  std::string profile = std::string(kMixedProfile);
  std::set<EventKind> only = {};  // of what the profile has; empty: all
  std::set<EventKind> without = {};
  // Numbers that are the same in all plans: "target", "chap", 0; "event" for an argument.
  struct Setting {
    std::string record;
    std::string name;
    std::int64_t value = 0;
  };
  std::vector<Setting> settings = {};
};

// The error: there is no such number.
[[nodiscard]] Result<void> apply(const GeneratorOptions::Setting& setting, Plan& plan);

[[nodiscard]] std::vector<std::string_view> profile_names();
// The profile is one of those, or the mixture.
[[nodiscard]] Plan generate_plan(std::uint64_t seed, const GeneratorOptions& options = {});

}  // namespace iscsi_blkback
