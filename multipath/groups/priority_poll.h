// PriorityPoll: asks from time to time for what an array does not say by itself when it changes: how
// well its paths serve the LUN, or how fast they are (path_latency). As PathChecker asks: less and
// less often while all is well. Owned by GroupController. Reactor thread.
#pragma once

#include <chrono>

#include "base/reactor.h"
#include "multipath/groups/prioritizer.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class PriorityPoll {
 public:
  class Owner {
   public:
    // The paths' mean latencies, which are at hand, may be other ones by now.
    virtual void update_priorities() = 0;

   protected:
    ~Owner() = default;
  };

  // paths and owner outlive it.
  PriorityPoll(Reactor& reactor, std::chrono::milliseconds interval,
               std::chrono::milliseconds max_interval, const PathSet& paths, Owner& owner);

  // What decides the priorities; start() is due.
  void set_prioritizer(PrioritizerKind kind) { kind_ = kind; }
  // Begins anew; where the priorities are fixed, stops.
  void start();
  // Something has changed, and more may: the next time is soon.
  void follow_closely();
  // The guest does not run: nothing is measured.
  void set_suspended(bool suspended) { suspended_ = suspended; }
  void stop() { timer_.stop(); }

 private:
  [[nodiscard]] bool measures_latency() const { return kind_ == PrioritizerKind::path_latency; }
  void start_timer();
  void on_timer();
  void ask_for_access();
  [[nodiscard]] bool asks_for_its_group(const Path& path) const;
  void measure_idle_paths();

  Reactor& reactor_;
  const std::chrono::milliseconds interval_;
  const std::chrono::milliseconds max_interval_;
  const PathSet& paths_;
  Owner& owner_;
  PrioritizerKind kind_{};
  bool suspended_ = false;
  Timer timer_;
  Duration next_interval_{};  // doubles as long as nothing changes
  TimePoint measure_at_{};    // for path_latency
};

}  // namespace iscsi_blkback
