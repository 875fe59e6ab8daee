// Runs the simulation over a range of seeds. A failure prints the seed and how to run it again.
//
//   simulation_test --seeds=17          one seed
//   simulation_test --seeds=1-100000    a range (also: environment SIMULATION_SEEDS)
//   simulation_test --seeds=17 --faults=3,8   one seed, with only these of its faults
#include "tests/simulation/disk_simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>

#include "base/log.h"
#include "tests/simulation/host/seed_range.h"

namespace iscsi_blkback {
namespace {

// Sanitizers make a run five to twenty times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kDefaultSeeds = 10;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr std::uint64_t kDefaultSeeds = 10;
#else
constexpr std::uint64_t kDefaultSeeds = 40;
#endif
#else
constexpr std::uint64_t kDefaultSeeds = 40;
#endif

SeedRange seeds{1, kDefaultSeeds};                   // NOLINT: set once in main
std::optional<std::set<std::uint64_t>> only_faults;  // NOLINT: likewise

// "3,17"
std::set<std::uint64_t> parse_faults(std::string_view text) {
  std::set<std::uint64_t> faults;
  while (!text.empty()) {
    const std::string_view number = text.substr(0, text.find(','));
    faults.insert(parse_seed_range(number).value_or(SeedRange{0, 0}).first);
    text.remove_prefix(std::min(text.size(), number.size() + 1));
  }
  return faults;
}

std::string report(std::uint64_t seed, const SimulationResult& result) {
  std::string text = "seed " + std::to_string(seed) + " (" + result.plan + ", " +
                     std::to_string(result.faults) + " faults):\n";
  for (const std::string& failure : result.failures) {
    text += "  " + failure + "\n";
  }
  return text + "run it again: simulation_test --gtest_filter=DiskSimulation.Seeds --seeds=" +
         std::to_string(seed);
}

TEST(DiskSimulation, Seeds) {
  SimulationResult total;
  for (std::uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
    const SimulationResult result = run_simulation({.seed = seed, .only_faults = only_faults});
    EXPECT_TRUE(result.failures.empty()) << report(seed, result);
    total.requests += result.requests;
    total.faults += result.faults;
    total.connection_losses += result.connection_losses;
    total.ghost_writes += result.ghost_writes;
    total.fenced_tasks += result.fenced_tasks;
    total.stuck_commands += result.stuck_commands;
    total.aborted_tasks += result.aborted_tasks;
    total.hedged += result.hedged;
    total.removed_paths += result.removed_paths;
    total.reattached += result.reattached;
    total.suspended += result.suspended;
    total.access_changes += result.access_changes;
    total.lun_resets += result.lun_resets;
    total.preemptions += result.preemptions;
  }
  std::printf(
      "seeds %llu-%llu: %llu requests, %llu faults, %llu lost connections, %llu ghost "
      "writes, %llu tasks fenced, %llu commands stuck, %llu tasks aborted, %llu hedges, %llu paths "
      "removed, %llu disks attached again, %llu suspended, %llu ALUA changes, %llu resets, %llu "
      "preemptions\n",
      static_cast<unsigned long long>(seeds.first), static_cast<unsigned long long>(seeds.last),
      static_cast<unsigned long long>(total.requests),
      static_cast<unsigned long long>(total.faults),
      static_cast<unsigned long long>(total.connection_losses),
      static_cast<unsigned long long>(total.ghost_writes),
      static_cast<unsigned long long>(total.fenced_tasks),
      static_cast<unsigned long long>(total.stuck_commands),
      static_cast<unsigned long long>(total.aborted_tasks),
      static_cast<unsigned long long>(total.hedged),
      static_cast<unsigned long long>(total.removed_paths),
      static_cast<unsigned long long>(total.reattached),
      static_cast<unsigned long long>(total.suspended),
      static_cast<unsigned long long>(total.access_changes),
      static_cast<unsigned long long>(total.lun_resets),
      static_cast<unsigned long long>(total.preemptions));
  if (seeds.last - seeds.first >= 20) {  // the plans do what they are for
    EXPECT_GT(total.requests, 10000U);
    EXPECT_GT(total.connection_losses, 100U);
    EXPECT_GT(total.ghost_writes, 10U);
    EXPECT_GT(total.fenced_tasks, 10U);
    EXPECT_GT(total.stuck_commands, 50U);
    EXPECT_GT(total.aborted_tasks, 50U);
    EXPECT_GT(total.hedged, 50U);
    EXPECT_GT(total.removed_paths, 50U);
    EXPECT_GT(total.reattached, 5U);
    EXPECT_GT(total.suspended, 10U);
    EXPECT_GT(total.access_changes, 50U);
  }
}

TEST(DiskSimulation, TheSameSeedGivesTheSameRun) {
  const SimulationResult first = run_simulation({.seed = 5});
  const SimulationResult second = run_simulation({.seed = 5});
  EXPECT_EQ(first.fingerprint, second.fingerprint);
  EXPECT_EQ(first.requests, second.requests);
  EXPECT_NE(first.fingerprint, run_simulation({.seed = 6}).fingerprint);
}

// The first failure with that text which a broken device brings about.
std::string caught(Canary canary, const char* text) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    for (const std::string& failure : run_simulation({.seed = seed, .canary = canary}).failures) {
      if (failure.find(text) != std::string::npos) {
        return "seed " + std::to_string(seed) + ", " + failure;
      }
    }
  }
  return {};
}

// A device that does not hold overlapping writes loses data, and the oracle must see that.
TEST(DiskSimulation, TheOracleCatchesADeviceWithoutTheHold) {
  const std::string failure = caught(Canary::no_hold, "overwritten before");
  EXPECT_FALSE(failure.empty());
  std::printf("caught with %s\n", failure.c_str());
}

// A fence of the logical unit that does not wait for the bytes that are still in the network ends
// what the target has, and then the rest arrives.
TEST(DiskSimulation, AFenceWithoutSettlingIsCaught) {
  const std::string failure = caught(Canary::no_settling, "overwritten before");
  EXPECT_FALSE(failure.empty());
  std::printf("caught with %s\n", failure.c_str());
}

TEST(DiskSimulation, ADiskThatIsAttachedAgainWithoutTheMarksIsCaught) {
  const std::string failure = caught(Canary::no_marks, "overwritten before");
  EXPECT_FALSE(failure.empty());
  std::printf("caught with %s\n", failure.c_str());
}

TEST(DiskSimulation, ADeviceThatAnswersWithABufferInUseIsCaught) {
  const std::string failure = caught(Canary::no_rule_of_buffers, "after its answer");
  EXPECT_FALSE(failure.empty());
  std::printf("caught with %s\n", failure.c_str());
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* wanted = std::getenv("SIMULATION_SEEDS");
  constexpr std::string_view kOption = "--seeds=";
  constexpr std::string_view kFaults = "--faults=";
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(kOption)) {
      wanted = argv[i] + kOption.size();
    } else if (std::string_view(argv[i]).starts_with(kFaults)) {
      iscsi_blkback::only_faults = iscsi_blkback::parse_faults(argv[i] + kFaults.size());
    }
  }
  if (wanted != nullptr) {
    const auto range = iscsi_blkback::parse_seed_range(wanted);
    if (!range) {
      std::fprintf(stderr, "seeds: a number or a range like 1-1000, not \"%s\"\n", wanted);
      return 2;
    }
    iscsi_blkback::seeds = *range;
  }
  iscsi_blkback::set_log_level(iscsi_blkback::LogLevel::error);
  return RUN_ALL_TESTS();
}
