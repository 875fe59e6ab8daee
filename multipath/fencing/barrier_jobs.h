// BarrierJobs: where the disks of a process do what they need files for to tell each other of their
// writes (LunWriteBarrier): not on the reactor's thread, which requests pass. Owned by whoever runs
// the process; outlives all disks. A disk has one job at a time.
#pragma once

#include <memory>

namespace iscsi_blkback {

// A value that goes to another thread and comes back: it has one owner at any time, and shares
// nothing with the disk until done().
class BarrierJob {
 public:
  virtual ~BarrierJob() = default;
  // Once. On the other thread; system calls that do not wait for anybody.
  virtual void work() = 0;
  // Once, after it. On the thread of the reactor, which owns the job until this returns. The disk
  // is not closed before.
  virtual void done() noexcept = 0;
};

class BarrierJobs {
 public:
  // From the reactor's thread. done() does not come from inside.
  virtual void run(std::unique_ptr<BarrierJob> job) = 0;

 protected:
  ~BarrierJobs() = default;
};

}  // namespace iscsi_blkback
