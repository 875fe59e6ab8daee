// LunTurn: a disk beside the other disks of this host at its LUN: whether it may use the LUN now,
// what the others are told of it, and what a dead one has left there. See lun_write_barrier.h, by
// which they all tell each other. Owned by MultipathDevice. Reactor thread; must_wait() and
// set_outstanding() are on the way of each request.
//
// What needs files for that is a BarrierJob: that the disk enters, and, once a second or while it
// waits, that it follows its file and learns who is elsewhere. One at a time; the disk is not idle()
// before it is back. Meanwhile the disk goes on as before. But until a job is back by which the disk
// enters, tells a new name of its LUN, or looks where a guest that is resumed may have been taken
// over, reads and writes wait.
//
// A request that finds, by what is mapped, that another disk has told something new, waits until
// this one has looked at the others, in the same turn (DiskStep::look_at_others): a look asks the
// kernel about the others' locks, which no request does.
//
// A disk that only reads tells nothing and waits for none. One that cannot tell others is not
// served: it would write where others count on nobody writing, and tries again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "multipath/fencing/barrier_follow.h"
#include "multipath/fencing/barrier_jobs.h"
#include "multipath/fencing/guest_state.h"
#include "multipath/fencing/lun_write_barrier.h"
#include "multipath/fencing/predecessor_fence.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/fencing/unfenced_writes.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class LunTurn final : private PredecessorFence::Owner {
 public:
  class Owner {
   public:
    // All the names of the disk's LUN.
    [[nodiscard]] virtual const LunNames& names() const = 0;
    // See NexusFencer::Client.
    [[nodiscard]] virtual PortalGroupFences portal_group_fences() const noexcept = 0;
    // overtaken() is true from now on.
    virtual void on_overtaken() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // See MultipathOptions.
  struct Options {
    std::string directory;  // empty: others are told nothing, and nobody is waited for
    std::string holder_name;
    std::uint32_t holder_domain = 0;
    bool shared = false;
    bool redirected_login_fences = false;
    Duration quiesce_time{};
    std::optional<TimePoint> host_started_at;
  };

  // The others outlive it.
  LunTurn(Reactor& reactor, Options options, SharedFencing& fencing, const PathSet& paths,
          DiskSteps& steps, DiskLog& log, Owner& owner);

  // The disk knows its LUN, by that target's LUN of that number; before it is ready.
  void enter(const LunNames& told, const std::string& target_name, std::uint16_t lun,
             SerialNumberIs serial, bool read_only);
  // What a path has told is the LUN's, as it was compared with what was known. From then on the
  // disk knows its LUN by it as well: a path may tell these names only, as may those of other
  // disks.
  void learn(const LunNames& told, const std::string& target_name, SerialNumberIs serial);

  // Whether reads and writes have to wait now, be it for a look only. No system calls.
  [[nodiscard]] bool must_wait() {
    if (barrier_.changed()) [[unlikely]] {
      want_look();
    }
    return look_is_due_ || waits();
  }
  // As of the last look.
  [[nodiscard]] bool waits() const { return !why_.empty() || waits_for_job_; }
  // Why, as a sentence; empty: it does not, or for so short a time that it is not worth a word.
  [[nodiscard]] std::string why() const;
  // Another disk has written while the guest was suspended: this one is never served again.
  [[nodiscard]] bool overtaken() const { return overtaken_; }

  void path_added(Path& path);
  void path_leaves(const Path& path);
  // A login has succeeded there, or had before the path came.
  void tell_nexus(const Path& path);
  void set_outstanding(const Path& path, bool writes) {
    barrier_.set_outstanding(path.index(), writes);
  }
  // What is lost and may still be executed until then.
  void tell_unfenced(const UnfencedWrites::Whereabouts& where, TimePoint until) {
    barrier_.set_unfenced(where.paths, where.elsewhere, until);
  }

  void set_guest(const GuestNow& guest);
  // The guest goes on, and has another disk of this LUN as soon as this one is closed.
  void keep_place() { keeps_place_ = true; }
  // Another disk may have come meanwhile: reads and writes wait until this turn's look.
  void want_look() {
    look_is_due_ = true;
    steps_.due(DiskStep::look_at_others);
  }
  // That step.
  void look();
  // The disk is being closed: no dead one is fenced any more. leave(): nothing of it is
  // outstanding.
  void close();
  void leave();
  [[nodiscard]] bool idle() const { return predecessors_.idle() && !job_is_out_; }

 private:
  // PredecessorFence::Owner
  void on_predecessor_fenced(const PredecessorPath& predecessor) noexcept override;
  void on_predecessor_fence_idle() noexcept override { steps_.due_to_end(); }
  [[nodiscard]] std::vector<Session*> path_sessions() const override;
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return owner_.portal_group_fences();
  }
  [[nodiscard]] bool redirected_login_fences() const noexcept override {
    return options_.redirected_login_fences;
  }

  struct Entering;  // BarrierJobs
  struct Following;

  void run(std::unique_ptr<BarrierJob> job);
  void try_to_enter();
  void on_entered(Result<LunWriteBarrier> barrier);
  void follow_file();
  // Reads and writes wait until it has been done.
  void follow_file_first();
  void on_followed(BarrierFollow follow);
  // False: it has not been followed.
  bool note_followed(const Result<bool>& followed);
  void end_wait_for_job();
  // The next look.
  void go_on();
  // error: of what needs the barrier's folder alone; null: it has succeeded.
  void note_folder(const Error* error);
  // Another process has the folder, and not for so long that it would be worth a word.
  [[nodiscard]] bool waits_for_folder() const;
  [[nodiscard]] Duration look_interval() const;
  void on_timer();
  [[nodiscard]] HolderUse use() const;
  void tell_use();
  [[nodiscard]] bool keeps_the_place() const;
  [[nodiscard]] std::string why_it_waits(const LunWriteBarrier::Others& others) const;
  void wait();
  void fence_dead_holders(const std::vector<LunWriteBarrier::DeadHolder>& dead);
  [[nodiscard]] const SessionOptions* session_at(const std::string& target_name) const;

  Reactor& reactor_;
  const Options options_;
  const PathSet& paths_;
  DiskSteps& steps_;
  DiskLog& log_;
  Owner& owner_;
  LunWriteBarrier barrier_;
  BarrierNames names_;  // all that paths have told
  std::string target_name_;
  std::uint16_t lun_ = 0;
  BarrierJobs* const jobs_;     // null: see SharedFencing
  bool job_is_out_ = false;     // another thread works for the disk
  bool waits_for_job_ = false;  // so do reads and writes
  bool follows_again_ = false;  // what is wanted came after the job had begun
  bool look_is_due_ = false;    // reads and writes wait for it
  PredecessorFence predecessors_;
  std::string error_;                      // why the disk has not entered
  std::optional<TimePoint> folder_since_;  // another process has it
  std::string why_;                        // reads and writes wait; empty: they do not
  TimePoint waits_since_{};
  TimePoint reminder_at_{};  // when the log says so once more
  bool overtaken_ = false;
  GuestNow guest_;
  bool keeps_place_ = false;
  bool closing_ = false;
  Timer timer_;
};

}  // namespace iscsi_blkback
