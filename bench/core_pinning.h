// Keeps the calling thread on one core, so that client and target of a benchmark do not share one.
#pragma once

#include <sched.h>

namespace iscsi_blkback {

// Does nothing when the machine has no such core, or core is negative.
inline void pin_to_core(int core) {
  if (core < 0 || core >= CPU_SETSIZE) {
    return;
  }
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<unsigned>(core), &cores);
  sched_setaffinity(0, sizeof cores, &cores);
}

}  // namespace iscsi_blkback
