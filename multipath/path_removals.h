// PathRemovals: the paths of a disk that are being removed, each until nothing of it is left: no
// command, no lost write that its session's login would fence, no registration, no fence session.
// Owned by MultipathDevice. Reactor thread.
//
// A path that is removed takes nothing new, and what has been sent there is answered there. Its
// connection is not dropped for the removal, as that would make a late write of each write that a
// working path is just about to answer, and would take its session from the other LUNs that share
// it. A command that is not answered in a few seconds is ended by ABORT TASK SET, which concerns
// this LUN alone (a disk of the same LUN over the same session tries again), and only a connection
// on which that does not help is dropped. Should the connection go meanwhile, for whatever reason,
// then reads go elsewhere and writes are fenced (write_order.h), for which the session goes on
// logging in. The path and its session are let go of when nothing is outstanding there and nothing
// unfenced is left, and its key (PrRegistration) is taken back: soon after quiesce_time at the
// latest.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/reactor.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class PathRemovals {
 public:
  class Owner {
   public:
    // Nothing of the path is left: it is to be taken from the set.
    virtual void forget_path(Path& path) = 0;
    // ... and was; its session may be used by others.
    virtual void on_path_removed(Session& session) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // The others outlive it.
  PathRemovals(Reactor& reactor, WriteFence& fence, DiskSteps& steps, DiskLog& log, Owner& owner);
  ~PathRemovals();

  // The path is retired. It asks nothing any more.
  void add(Path& path);
  // What a path waits for may have happened.
  void look();
  // Nothing is left of what paths have had at the fencer.
  void on_withdrawn();
  // Paths stay as they are.
  void close() { closing_ = true; }

  // No command of our own is outstanding at any of them. Guest I/O is the requests'.
  [[nodiscard]] bool idle() const;
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(removals_.size()); }
  [[nodiscard]] std::uint32_t in_flight() const;

 private:
  struct Removal;

  [[nodiscard]] bool is_over(Removal& removal);
  [[nodiscard]] bool nothing_outstanding(const Removal& removal) const;
  void on_overdue(Removal& removal);

  Reactor& reactor_;
  WriteFence& fence_;
  DiskSteps& steps_;
  DiskLog& log_;
  Owner& owner_;
  bool closing_ = false;
  std::vector<std::unique_ptr<Removal>> removals_;
};

}  // namespace iscsi_blkback
