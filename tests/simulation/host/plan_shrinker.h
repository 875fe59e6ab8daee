// PlanShrinker: reduces a plan that fails to the smallest that it finds which fails by the same
// rule: events first (delta debugging: large groups, then smaller ones, then each), then records,
// then every number towards its simplest value, again and again until nothing more can go.
//
// A plan that has lost an event runs in another order from there on, and may miss by luck what it
// is about; so each is also tried with a few other seeds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/simulation/host/host_simulation.h"
#include "tests/simulation/host/plan.h"

namespace iscsi_blkback {

class PlanShrinker {
 public:
  // jobs: how many plans are run at the same time, each in a process of its own. progress: told a
  // line now and then.
  PlanShrinker(Rule rule, HostSimulationOptions options, unsigned jobs,
               std::function<void(const std::string&)> progress);

  // plan: fails by the rule. Returns the smallest plan, which does, too.
  [[nodiscard]] Plan shrink(Plan plan);
  [[nodiscard]] std::uint64_t runs() const { return runs_; }

 private:
  // Takes the first of these plans that still fails. False: none does.
  bool take_first(Plan& plan, const std::vector<Plan>& candidates);
  bool remove_events(Plan& plan);
  bool remove_records(Plan& plan);
  bool simplify_numbers(Plan& plan);
  void tell(const Plan& plan, const char* what);

  const Rule rule_;
  const HostSimulationOptions options_;
  const unsigned jobs_;
  const std::function<void(const std::string&)> progress_;
  std::uint64_t runs_ = 0;
};

}  // namespace iscsi_blkback
