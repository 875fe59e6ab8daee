// The plans that have shown a fault, in tests/simulation/host/plans: those in the folder itself must
// run without a failure, for ever; those in unmended/ show faults that are not mended yet, and must
// go on failing. Whoever mends a fault moves its plans up. A line "# breaks RULE" in each says what
// it is about.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "tests/simulation/host/plan.h"
#include "tests/simulation/host/rule.h"

namespace iscsi_blkback {

struct KeptPlan {
  std::string name;  // of the file
  Rule rule = Rule::crash;
  Plan plan;
};

// In the order of their names. folder: tests/simulation/host/plans. A file that is no plan, or does not
// say what it breaks, ends the program with a message.
[[nodiscard]] std::vector<KeptPlan> mended_plans(const std::string& folder);
[[nodiscard]] std::vector<KeptPlan> unmended_plans(const std::string& folder);

// The rules that the product breaks as long as there are unmended faults.
[[nodiscard]] std::set<Rule> unmended_rules(const std::string& folder);

}  // namespace iscsi_blkback
