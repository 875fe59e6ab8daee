// What the command `simulate` is asked to do.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tests/simulation/host/host_simulation.h"
#include "tests/simulation/host/plan_generator.h"
#include "tests/simulation/host/seed_range.h"

namespace iscsi_blkback {

inline constexpr const char* kSimulateUsage =
    "simulate [OPTIONS]: runs seeds of the host simulation, each in a process of its own\n"
    "  --seeds=A[-B]       which seeds (1)\n"
    "  --profile=NAME      the distribution of their plans (mixed); --profiles lists them\n"
    "  --only=KIND,...     only these kinds of events, of those that the plans have\n"
    "  --without=KIND,...  not these\n"
    "  --set=R.NAME=N,...  this number in all plans, like target.chap=0 or event.same_domid=0\n"
    "  --ignore=RULE,...   rules that are not looked at\n"
    "  --break=NAME        break the product: lonely_processes, suspend_is_missed, ...\n"
    "  --jobs=N            so many at the same time (all cores)\n"
    "  --stop              stop at the first failure\n"
    "  --shrink            shrink the plan of each failure to its smallest and print it\n"
    "  --keep=FOLDER       and keep it there\n"
    "  --disk              the simulation of single disks instead; of the other options, only\n"
    "                      --seeds, --jobs, --shrink and --print (here: run each seed and\n"
    "                      print its fingerprint) are for it\n"
    "  --plan=FILE         run this plan instead of seeds\n"
    "  --print             print the plans, do not run them\n"
    "  --log               print the product's log and all events, in this process\n"
    "  --counts            print in the end how often what has happened\n"
    "  --help              print this\n"
    "Exit status: 1 when anything failed, 2 for a mistake in the options.\n";

struct SimulateOptions {
  SeedRange seeds;
  GeneratorOptions generator;
  HostSimulationOptions simulation;
  unsigned jobs = 1;
  std::optional<Plan> plan;  // instead of seeds
  std::string plan_file;
  std::string keep_folder;  // empty: nowhere
  bool disk = false;
  bool stops = false;
  bool shrinks = false;
  bool prints = false;
  bool counts = false;
};

// The error is a sentence for the user.
[[nodiscard]] Result<SimulateOptions> parse_simulate_options(const std::vector<std::string>& words);

}  // namespace iscsi_blkback
