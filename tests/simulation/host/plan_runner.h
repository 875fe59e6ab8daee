// Runs a plan in a process of its own: what crashes or hangs there is a failure like any other, and
// what killed processes leave in memory is gone afterwards.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "tests/simulation/host/host_simulation.h"

namespace iscsi_blkback {

class PlanRunner {
 public:
  // Begins to run it. plan and options are not needed afterwards.
  PlanRunner(const Plan& plan, const HostSimulationOptions& options);
  ~PlanRunner();  // ends it if it still runs
  PlanRunner(PlanRunner&& other) noexcept;
  PlanRunner& operator=(PlanRunner&&) = delete;

  // Readable when it has ended.
  [[nodiscard]] int fd() const { return answer_.get(); }
  // Waits for its end.
  [[nodiscard]] HostSimulationResult result();

  // Of processor time, and of real time on a machine that is busy; no plan takes so long.
  static constexpr std::chrono::seconds kLongestRun{60};
  static constexpr std::chrono::seconds kLongestWait{600};

 private:
  pid_t child_ = 0;  // 0: has been waited for
  UniqueFd answer_;
};

// Both at once.
[[nodiscard]] HostSimulationResult run_apart(const Plan& plan,
                                             const HostSimulationOptions& options = {});

}  // namespace iscsi_blkback
