// PathActivator: has the array serve the LUN through one of a disk's ghost paths when no path is
// up any more, or when they are the better side and failback says so. Requests wait meanwhile.
// Owned by MultipathDevice. Reactor thread.
//
// One path is asked at a time, the best group's first; one that refuses, or does not answer in
// checker_timeout, is passed over until all have been tried, and then tried again after a while.
// What takes the LUN from a side that may only be late is not done while an answer is near, and at
// attach not for kGhostDelay.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/reactor.h"
#include "multipath/groups/group_controller.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"
#include "multipath/path/path_state.h"

namespace iscsi_blkback {

class PathActivator {
 public:
  // What it asks of the paths, and has them do: GhostPaths. Those in use, by number.
  class Ghosts {
   public:
    // They can be told, and are not just being told.
    [[nodiscard]] virtual PathMask tellable() const = 0;
    // They have been asked something else, and have not answered.
    [[nodiscard]] virtual PathMask awaiting_answer() const = 0;
    // A path is being asked who it is, and not for so long that its LUN may hang; or, where reads
    // count, how it serves the LUN.
    [[nodiscard]] virtual bool answer_is_near(bool reads_count) const = 0;
    // Tells the array to serve the LUN through this one, which is tellable(). Later on_done().
    virtual void activate(std::uint32_t path) = 0;
    // What is just being told is taken back, where it was not sent yet. Of all paths.
    virtual void withdraw() = 0;
    // They read again how they serve the LUN.
    virtual void refresh_access(PathMask paths) = 0;

   protected:
    ~Ghosts() = default;
  };

  // answer_time: how long an activation may take before the next path is asked; the session waits
  // longer. The others outlive it.
  PathActivator(Reactor& reactor, std::chrono::milliseconds answer_time, const PathSet& paths,
                Ghosts& ghosts, GroupController& groups, DiskSteps& steps, DiskLog& log);

  // Ghosts that can be told, are not just being told, and have not been passed over.
  [[nodiscard]] PathMask activatable() const {
    const PathMask left = paths_.ghost() & ~bypassed_;
    return left == 0 ? 0 : left & ghosts_.tellable();
  }
  // A path is being activated; also between two tries.
  [[nodiscard]] bool busy() const { return activating_.has_value(); }
  // The path is being activated, or is about to be.
  [[nodiscard]] bool concerns(const Path& path) const;
  // A path is just being asked who it is or how it serves the LUN, and may turn out to be the
  // active side.
  [[nodiscard]] bool answer_is_near() const;
  // ... and when that has had its time, DiskStep::follow_outage.
  void await_answer();
  // At the end of DiskStep::follow_outage: where none is awaited any more, the next answer has all
  // its time.
  void note_answer_awaited() {
    if (!answer_timer_.armed()) {
      answer_awaited_since_.reset();
    }
  }

  // No path is up any more. The array may have made one of the ghosts the active side by now, which
  // is not to be undone.
  void on_all_lost();
  // The path's state has changed to this one, and the groups with it.
  void on_state(std::uint32_t index, PathState state);
  // The path is being removed.
  void forget(const Path& path);
  // A path's activation has ended, however late.
  void on_done(const Path& path, PathActivation::Outcome outcome);
  // Whether something is to be activated now.
  void activate_if_needed();
  // The same, also for failback: after all that a path's answer changes has changed.
  // DiskStep::activate.
  void look();
  // The best group is to be used, and has ghosts only.
  void want_failback();
  // The disk knows its LUN: no path is waited for any more that needs no activation.
  void set_known() { known_ = true; }

  // The guest is suspended, so that the LUN is the migration's destination's to take; resume()
  // begins anew. What was not sent yet is taken back.
  void suspend();
  void resume();
  void close();

 private:
  void activate(std::uint32_t group);
  void try_activation();
  void on_timer();
  void give_up();
  // What may be activated, or fallen back to, is no longer the same.
  void choose_anew();
  void end();
  void withdraw();
  void activate_what_is_left();
  void activate_for_failback();
  [[nodiscard]] bool bypassed_is_wanted() const;

  Reactor& reactor_;
  const std::chrono::milliseconds answer_time_;
  const PathSet& paths_;
  Ghosts& ghosts_;
  GroupController& groups_;
  DiskSteps& steps_;
  DiskLog& log_;
  bool known_ = false;
  bool suspended_ = false;
  bool closed_ = false;
  Timer timer_;                              // the next try, or the end of patience
  std::optional<std::uint32_t> activating_;  // the path
  std::uint32_t tries_ = 0;
  PathMask bypassed_ = 0;  // ghosts whose activation has failed, or is not answered
  bool ghost_delay_over_ = false;
  bool reconsiders_ = false;   // failback is to be decided at the next look
  bool for_failback_ = false;  // is to be thought about when no answer is near
  Timer answer_timer_;  // another look whether the path that is just being asked has had its time
  std::optional<TimePoint> answer_awaited_since_;
};

}  // namespace iscsi_blkback
