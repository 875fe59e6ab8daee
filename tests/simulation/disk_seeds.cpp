#include "tests/simulation/disk_seeds.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "tests/simulation/disk_simulation.h"

namespace iscsi_blkback {
namespace {

struct Prints {
  bool failures = false;
  bool fingerprint = false;
};

// The child tells by its status whether the run has failed.
pid_t start(const SimulationOptions& options, Prints prints) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  ISCSI_BLKBACK_ASSERT(child >= 0);
  if (child != 0) {
    return child;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) {
    ::_exit(1);  // it has ended before it could be noticed
  }
  set_log_level(LogLevel::error);
  const SimulationResult result = run_simulation(options);
  for (const std::string& failure : result.failures) {
    if (prints.failures) {
      std::printf("  %s\n", failure.c_str());
    }
  }
  if (prints.fingerprint) {
    std::printf("disk seed %llu: fingerprint %016llx\n",
                static_cast<unsigned long long>(options.seed),
                static_cast<unsigned long long>(result.fingerprint));
  }
  std::fflush(stdout);
  ::_exit(result.failures.empty() ? 0 : 1);
}

bool has_failed(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status != 0;
}

// Without one group of faults after the other, ever smaller ones, as long as it still fails.
std::vector<std::uint64_t> fewest_faults(std::uint64_t seed) {
  std::vector<std::uint64_t> faults;
  for (std::uint64_t number = run_simulation({.seed = seed}).planned_faults; number > 0; --number) {
    faults.insert(faults.begin(), number);
  }
  for (std::size_t size = std::max<std::size_t>(faults.size() / 2, 1); size > 0; size /= 2) {
    for (std::size_t first = 0; first < faults.size();) {
      std::vector<std::uint64_t> fewer = faults;
      const auto begin = fewer.begin() + static_cast<std::ptrdiff_t>(first);
      const std::size_t count = std::min(size, faults.size() - first);
      fewer.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
      const std::set<std::uint64_t> only(fewer.begin(), fewer.end());
      if (has_failed(start({.seed = seed, .only_faults = only}, {}))) {
        faults = std::move(fewer);
      } else {
        first += count;
      }
    }
  }
  return faults;
}

}  // namespace

void DiskSeeds::report(std::uint64_t seed) const {
  std::string line =
      fmt::format("simulation_test --gtest_filter=DiskSimulation.Seeds --seeds={}", seed);
  if (shrinks_) {
    const std::vector<std::uint64_t> faults = fewest_faults(seed);
    line += fmt::format(" --faults={}", fmt::join(faults, ","));
    const std::set<std::uint64_t> only(faults.begin(), faults.end());
    (void)has_failed(start({.seed = seed, .only_faults = only}, {.failures = true}));
  }
  std::printf("disk seed %llu fails; run it again: %s\n", static_cast<unsigned long long>(seed),
              line.c_str());
}

void DiskSeeds::run(const std::function<void(bool failed)>& done) const {
  std::deque<std::pair<std::uint64_t, pid_t>> running;
  std::uint64_t next = seeds_.first;
  while (next <= seeds_.last || !running.empty()) {
    while (next <= seeds_.last && running.size() < jobs_) {
      running.emplace_back(next,
                           start({.seed = next}, {.failures = !shrinks_, .fingerprint = prints_}));
      ++next;
    }
    const auto [seed, child] = running.front();
    running.pop_front();
    const bool failed = has_failed(child);
    if (failed) {
      report(seed);
    }
    done(failed);
  }
}

}  // namespace iscsi_blkback
