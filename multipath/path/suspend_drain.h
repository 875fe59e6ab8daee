// SuspendDrain: what becomes of what is at the paths when a disk's guest is suspended, or may be;
// those that are being removed included. Nothing more but flushes is sent meanwhile. Owned by MultipathDevice.
// Reactor thread.
//
// A suspended guest may go on elsewhere within a moment (migration, restore) and write anew what it
// had no answer for. An old write of this device that is executed after that can overwrite a newer
// one. So:
//  - commands that wait in a session for the target's window are taken back before they are sent,
//    also one that would have the array serve the LUN elsewhere;
//  - paths that are silent are given up at once, not after path_timeout: the login that follows is
//    the fence of what they had lost;
//  - writes at the other paths have kSuspendDrain to be answered. A toolstack takes longer than
//    that to hand a guest over. Then their connections are given up, too, for the same fence.
// Meanwhile no_path_retry does not run: the guest waits for nothing, and is told nothing.
// What a target does later than that with a write that it has, and that no login of this device
// reaches, no other host is told.
#pragma once

#include "base/reactor.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class SuspendDrain {
 public:
  SuspendDrain(Reactor& reactor, const PathSet& paths);

  // The guest is suspended; what was not sent has been taken back.
  void start();
  // It goes on.
  void stop() { timer_.stop(); }

 private:
  void on_timer();

  const PathSet& paths_;
  Timer timer_;  // the end of the time that writes have to be answered
};

}  // namespace iscsi_blkback
