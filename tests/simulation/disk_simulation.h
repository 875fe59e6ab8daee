// DiskSimulation: one run of disks over several paths with a random guest and a plan of faults, all
// drawn from a seed, in virtual time: MultipathDevice over the real engine, the simulated network
// and target. Every answer goes through the oracle.
//
// What the run checks, beyond the data (see SectorOracle):
//  - each request completes exactly once, never from inside submit, and with ok, except reads and
//    writes where the plan allows no_path;
//  - the buffer of a request is not touched any more once it is answered;
//  - a flush that succeeded has reached the LUN after it was asked for;
//  - when the faults have ended, everything completes within a bounded time;
//  - after closing, nothing is left: no request, no session at the target;
//  - the initiator has broken no rule of RFC 7143 that the target knows.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "multipath/multipath_device.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

// A test's way to a device that does not hold overlapping writes, or that answers a read while the
// connection still has its buffer; see write_order.h and hedger.h.
struct MultipathDeviceCanary {
  static void disable_hold(MultipathDevice& device) { device.disable_hold_of_overlapping_writes(); }
  static void disable_rule_of_buffers(MultipathDevice& device) { device.disable_rule_of_buffers(); }
};

enum class Canary : std::uint8_t {
  none,
  no_hold,
  no_rule_of_buffers,
  no_marks,     // a disk that is attached again knows nothing of what its former life has lost
  no_settling,  // lost writes are fenced without waiting for what is still in the network
};

struct SimulationOptions {
  std::uint64_t seed = 1;
  Canary canary = Canary::none;  // what is broken
  // Only these faults of the seed's, by their numbers from 1 on; nullopt: all. Each draws from random
  // numbers of its own, so that the others do what they did.
  std::optional<std::set<std::uint64_t>> only_faults = {};
};

struct SimulationResult {
  std::vector<std::string> failures;  // at most a few; empty: all good
  std::string plan;                   // what the seed has chosen, for a person
  std::uint64_t requests = 0;
  std::uint64_t faults = 0;
  std::uint64_t planned_faults = 0;
  std::uint64_t fingerprint = 0;     // of all answers and their times
  std::uint64_t access_changes = 0;  // of target port groups (ALUA)
  std::uint64_t connection_losses = 0;
  std::uint64_t ghost_writes = 0;  // executed after their connection was gone
  std::uint64_t fenced_tasks = 0;  // terminated at the target
  std::uint64_t lun_resets = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t stuck_commands = 0;
  std::uint64_t hedged = 0;         // reads and flushes asked for twice
  std::uint64_t removed_paths = 0;  // and added again
  std::uint64_t reattached = 0;     // disks
  std::uint64_t suspended = 0;
  std::uint64_t aborted_tasks = 0;  // ended at the target by ABORT TASK or a reset
};

[[nodiscard]] SimulationResult run_simulation(const SimulationOptions& options);

}  // namespace iscsi_blkback
