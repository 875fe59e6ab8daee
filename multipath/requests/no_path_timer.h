// NoPathTimer: how long the requests of a disk wait while it has no path (no_path_retry), and
// whether that time is over. Owned by MultipathDevice, which tells what becomes of the paths and of
// the guest. Reactor thread.
//
// An outage begins when the last path is lost, and ends with the first one that is up and can be
// relied on. A path whose connections keep ending takes requests, which may go through, but does
// not end an outage for which there is a time: it has to last first. A suspended guest waits for
// nothing, so that the time begins anew when it goes on; of a doubt whether it is suspended, of
// which there may be one after the other, only the doubt's own time does not count.
#pragma once

#include <cstdint>
#include <optional>

#include "base/reactor.h"
#include "multipath/fencing/guest_state.h"
#include "multipath/groups/path_policies.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class NoPathTimer {
 public:
  struct Paths {
    bool any_up = false;
    bool any_reliable = false;  // up, and its connections do not keep ending
    bool any_keeps_ending = false;

    [[nodiscard]] static Paths of(const PathSet& paths);
  };

  class Owner {
   public:
    // Asked from the timer: whether a path has lasted is told by nobody.
    [[nodiscard]] virtual Paths paths_now() const = 0;
    // From the reactor. expired() is true from now on.
    virtual void on_no_path_retry_over() noexcept = 0;
    // From the reactor: a path that was up, but not to be relied on, has lasted.
    virtual void on_path_has_lasted() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // wait: for so long requests wait; nullopt: for ever.
  NoPathTimer(Reactor& reactor, NoPathRetry wait, Owner& owner);

  // Holds for an outage that goes on, too: its time counts from its beginning.
  void set_wait(NoPathRetry wait);
  // had_path: a path was up before this change.
  void on_paths(const Paths& paths, bool had_path);
  // state: none but runs.
  void suspend(GuestState state);
  void resume();
  // Nothing expires any more.
  void close();

  // There is no path, and no_path_retry is over.
  [[nodiscard]] bool expired() const { return expired_; }
  [[nodiscard]] NoPathRetry wait() const { return wait_; }
  // How long requests have waited so far, in all outages, without what came after expired().
  [[nodiscard]] Duration queued_time() const;
  [[nodiscard]] std::uint64_t timeouts() const { return timeouts_; }

 private:
  void end_outage();
  void start_timer();
  void on_timer();

  Reactor& reactor_;
  Owner& owner_;
  NoPathRetry wait_;
  std::optional<TimePoint> since_;  // of an outage: from when wait_ counts
  TimePoint queueing_since_{};      // of an outage that has not expired
  Duration queued_time_{};          // before that
  std::uint64_t timeouts_ = 0;
  bool expired_ = false;
  bool closed_ = false;
  bool suspended_ = false;
  bool only_in_doubt_ = false;  // in all the time since suspended_since_
  TimePoint suspended_since_{};
  Timer timer_;
};

}  // namespace iscsi_blkback
