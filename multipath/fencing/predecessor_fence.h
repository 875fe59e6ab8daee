// PredecessorFence: fences what a dead process of this host has left at a disk's LUN, so that the
// disk need not wait for quiesce_time. For each nexus that may still carry writes of the dead disk
// (LunWriteBarrier) there is a login with the same ISID, at which the target terminates the old
// session's tasks (session reinstatement, RFC 7143 6.3.5), whatever of it had arrived there or not.
// Owned by MultipathDevice. Reactor thread.
//
// Where the disk has a path of the same nexus (a process that is started again for the same guest
// comes to the same ISIDs), that path's own login does it: the next one, or the one that it has, if
// the target answers a NOP-Out on it now, because a later login of the dead process would have
// ended that. Else a session of this object logs in where the dead one had, at that address of the
// portal's name or where a redirect had led from there, or through a sibling portal of the same
// portal group, where the disk vouches for that (a trial says nothing of a login that a dead
// process has made), and out again. Where another disk of this process has a session of that ISID,
// or the disk's own path has one in the same portal group, it is left alone, and time decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/reactor.h"
#include "initiator/session/session.h"
#include "multipath/fencing/lun_write_barrier.h"
#include "multipath/fencing/shared_fencing.h"

namespace iscsi_blkback {

class PredecessorFence {
 public:
  class Owner {
   public:
    // From the reactor. Nothing that was sent in that nexus before can be executed any more.
    virtual void on_predecessor_fenced(const PredecessorPath& predecessor) noexcept = 0;
    // After stop(): nothing is left.
    virtual void on_predecessor_fence_idle() noexcept = 0;
    // Sessions of the disk's paths.
    [[nodiscard]] virtual std::vector<Session*> path_sessions() const = 0;
    // What the disk vouches for of its target; see NexusFencer::Client.
    [[nodiscard]] virtual PortalGroupFences portal_group_fences() const noexcept = 0;
    [[nodiscard]] virtual bool redirected_login_fences() const noexcept = 0;

   protected:
    ~Owner() = default;
  };

  PredecessorFence(Reactor& reactor, SharedFencing& fencing, Owner& owner);
  ~PredecessorFence();  // idle() only
  PredecessorFence(const PredecessorFence&) = delete;
  PredecessorFence& operator=(const PredecessorFence&) = delete;

  // Begins, unless that is under way. like: a session of the same target, for its credentials.
  void fence(const PredecessorPath& predecessor, const BarrierNexus& nexus,
             const SessionOptions& like);
  // Those that are not among these need no fence any more.
  void keep_only(const std::vector<PredecessorPath>& wanted);
  // The disk has a path by this session now; it is about to lose it.
  void path_added(Session& session);
  void path_leaves(Session& session);
  // No fence is begun any more.
  void stop();
  [[nodiscard]] bool idle() const { return attempts_.empty(); }

  // Sessions of its own at once, where the budget has room for them.
  static constexpr std::size_t kMaxSessions = 8;

 private:
  class Attempt;

  void start_waiting();
  void reap();

  Reactor& reactor_;
  SharedFencing& fencing_;
  Owner& owner_;
  std::vector<std::unique_ptr<Attempt>> attempts_;
  bool stopping_ = false;
  Deferred reap_;
};

}  // namespace iscsi_blkback
