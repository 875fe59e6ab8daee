// OutageWatch: what becomes of a disk's waiting requests while it has no path: for how long they
// wait (NoPathTimer), and whether an answer that is about to come is waited for after that
// (outage.h). Owned by MultipathDevice. Reactor thread.
#pragma once

#include "base/reactor.h"
#include "multipath/fencing/guest_state.h"
#include "multipath/groups/path_activator.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/no_path_timer.h"
#include "multipath/requests/outage.h"
#include "multipath/requests/request_queue.h"

namespace iscsi_blkback {

class OutageWatch final : private NoPathTimer::Owner {
 public:
  // The others outlive it.
  OutageWatch(Reactor& reactor, NoPathRetry wait, const PathSet& paths, PathActivator& activator,
              RequestQueue& queue, DiskSteps& steps, DiskLog& log);

  void set_wait(NoPathRetry wait) { timer_.set_wait(wait); }
  // had_path: a path was up before this change.
  void on_paths(bool had_path) { timer_.on_paths(paths_now(), had_path); }
  // state: none but runs.
  void suspend(GuestState state);
  void resume();
  void close() { timer_.close(); }

  [[nodiscard]] Outage now() const;
  // DiskStep::follow_outage
  void follow();
  [[nodiscard]] const NoPathTimer& timer() const { return timer_; }

 private:
  [[nodiscard]] NoPathTimer::Paths paths_now() const override {
    return NoPathTimer::Paths::of(paths_);
  }
  void on_no_path_retry_over() noexcept override;
  void on_path_has_lasted() noexcept override { steps_.due(DiskStep::pump); }

  const PathSet& paths_;
  PathActivator& activator_;
  RequestQueue& queue_;
  DiskSteps& steps_;
  DiskLog& log_;
  bool suspended_ = false;
  NoPathTimer timer_;
};

}  // namespace iscsi_blkback
