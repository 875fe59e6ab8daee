// BarrierUse: what all disks of this host tell at their LUNs, for the service, which owns none of
// them. The service's control thread; file I/O.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace iscsi_blkback {

// A process of this host has just been found dead: its disks' time counts from now on. For whoever
// hears of the ends of processes; without it, the time counts from when another disk finds out.
void note_death_in_barriers(const std::string& folder, std::int32_t pid, TimePoint now);

// What the disks of this host have at their LUNs, the most serious of it.
enum class BarrierUse : std::uint8_t {
  none,     // nothing that could still be executed, and nobody who sends anything
  ending,   // disks that are about to end, or that have died
  running,  // disks whose guests run
};
[[nodiscard]] BarrierUse use_of_barriers(const std::string& folder, TimePoint now);

}  // namespace iscsi_blkback
