// SharedFencing: what the disks of a process have in common to fence lost writes, because they have
// their sessions in common. Owned by whoever owns the sessions (SessionPool), handed out to each
// MultipathDevice; outlives sessions and devices. Reactor thread.
#pragma once

#include "base/reactor.h"
#include "multipath/fencing/barrier_jobs.h"
#include "multipath/fencing/nexus_fencer.h"
#include "multipath/fencing/session_budget.h"
#include "multipath/path/registration_table.h"

namespace iscsi_blkback {

struct SharedFencing {
  // jobs: see BarrierJobs, outlives this. Null: files are used at once, on the reactor's thread, for
  // whoever has no other disks on the host, or no other thread.
  explicit SharedFencing(Reactor& reactor, BarrierJobs* jobs = nullptr)
      : barrier_jobs(jobs), sessions(reactor, budget) {}

  BarrierJobs* const barrier_jobs;
  SessionBudget budget;
  RegistrationTable registrations;
  NexusFencer sessions;
};

}  // namespace iscsi_blkback
