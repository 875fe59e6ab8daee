// Runs seeds of the simulation of single disks, each in a process of its own, and finds the fewest
// faults of a seed with which it still fails. For the command `simulate --disk`.
// Printed fingerprints, sorted, are equal before and after a change that moves code and changes
// nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "tests/simulation/host/seed_range.h"

namespace iscsi_blkback {

class DiskSeeds {
 public:
  // prints: a line with each seed's fingerprint.
  DiskSeeds(SeedRange seeds, unsigned jobs, bool shrinks, bool prints)
      : seeds_(seeds), jobs_(jobs), shrinks_(shrinks), prints_(prints) {}

  // done: called for each seed, with whether it has failed.
  void run(const std::function<void(bool failed)>& done) const;

 private:
  void report(std::uint64_t seed) const;

  const SeedRange seeds_;
  const unsigned jobs_;
  const bool shrinks_;
  const bool prints_;
};

}  // namespace iscsi_blkback
