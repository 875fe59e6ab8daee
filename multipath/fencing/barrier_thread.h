// BarrierThread: one thread for the BarrierJobs of a process, in the order in which they come; no
// more than one for each disk waits. The control thread is not asked to do this: it may wait for
// xenstored, and disks do not. Made and destroyed while the reactor does not run; run() is the
// reactor's thread's.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "base/core_dumps.h"
#include "base/reactor.h"
#include "multipath/fencing/barrier_jobs.h"

namespace iscsi_blkback {

class BarrierThread final : public BarrierJobs {
 public:
  // reactor: of the disks; outlives it. The thread begins with the first job.
  explicit BarrierThread(Reactor& reactor) : reactor_(reactor) {}
  // What waits is dropped, what is being done is waited for.
  ~BarrierThread();
  BarrierThread(const BarrierThread&) = delete;
  BarrierThread& operator=(const BarrierThread&) = delete;

  // Where no thread can be started, at once, on this one.
  void run(std::unique_ptr<BarrierJob> job) override;

 private:
  void work();
  void hand_back(std::unique_ptr<BarrierJob> job);

  Reactor& reactor_;
  std::mutex mutex_;
  std::condition_variable wake_;                     // the thread
  std::deque<std::unique_ptr<BarrierJob>> waiting_;  // guarded by the mutex, as is ends_
  bool ends_ = false;
  std::optional<OwnStackThread> thread_;  // joined when it is destroyed
};

}  // namespace iscsi_blkback
