// MachineCosts: what sleeping and waking costs on the machine that a benchmark runs on. Every
// client pays it for each batch of answers, so that figures of two machines can be told apart by
// it: in a virtual machine an interrupt to another core and a timer are work for the hypervisor.
#pragma once

#include <string>

namespace iscsi_blkback {

struct MachineCosts {
  double wake_us = 0;         // of the processor that wakes a thread on the other core
  double runs_after_us = 0;   // until that thread runs
  double woken_us = 0;        // its own processor time a sleep
  double timed_sleep_us = 0;  // processor time of a sleep that a timer ends

  [[nodiscard]] std::string text() const;
};

// Takes about half a second.
[[nodiscard]] MachineCosts measure_machine_costs(int core, int other_core);

}  // namespace iscsi_blkback
