// The host simulation: runs a plan. Two hosts with everything that the product has there, from the
// guests' rings to the sockets, one network, one or two simulated targets, in virtual time. What
// must hold is in rule.h. See README.md in tests/simulation.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/host/plan.h"
#include "tests/simulation/host/product_process.h"
#include "tests/simulation/host/rule.h"

namespace iscsi_blkback {

struct HostSimulationOptions {
  Breakage breakage = Breakage::none;
  std::set<Rule> ignored = {};  // rules that are known to be broken, and are not looked at
  bool prints_log = false;      // to standard error, with virtual times
};

struct HostSimulationResult {
  std::vector<RuleFailure> failures;  // the run ends with the first; empty: all good
  // How often what has happened: "event KIND", "fence by ...", and so on.
  std::map<std::string, std::uint64_t, std::less<>> happened;
  std::uint64_t fingerprint = 0;  // of all answers that guests got, and when

  [[nodiscard]] std::uint64_t count(std::string_view what) const {
    const auto found = happened.find(what);
    return found == happened.end() ? 0 : found->second;
  }
};

[[nodiscard]] HostSimulationResult run_plan(const Plan& plan,
                                            const HostSimulationOptions& options = {});

}  // namespace iscsi_blkback
