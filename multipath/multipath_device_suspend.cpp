// The guest of a MultipathDevice is suspended or may be, or its disk is closed: nothing more is
// sent, on any path, those that are being removed included.
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
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::milliseconds kSuspendDrain{50};

}  // namespace

void MultipathDevice::Impl::set_guest(const GuestNow& guest) {
  const bool was_suspended = suspended();
  guest_ = guest;
  groups_.set_suspended(suspended());
  queue_.set_suspended(suspended());
  turn_.set_guest(guest);
  if (suspended()) {
    no_path_timer_.suspend(guest_.state);
  }
  if (suspended() == was_suspended) {
    return;
  }
  if (suspended()) {
    fence_.suspend();
    withdraw_unsent();
    activator_.suspend();
    drop_silent_paths();
    suspend_timer_.start_after(kSuspendDrain);
  } else {
    suspend_timer_.stop();
    fence_.resume();
    turn_.look();  // another disk may have come meanwhile
    queue_.hedger().look_soon();
    fence_.look_for_trials_soon();
    no_path_timer_.resume();
    activator_.resume();
    queue_.pump_soon();
  }
}

// They wait here then (or end, when the disk is being closed).
void MultipathDevice::Impl::withdraw_unsent() {
  for (Path* path : paths_.all()) {
    path->withdraw_unsent();
  }
}

void MultipathDevice::Impl::drop_silent_paths() {
  for (Path* path : paths_.all()) {
    if ((paths_.suspect() & path_bit(path->index())) != 0 &&
        path->session().state() == SessionState::logged_in) {
      path->session().drop(Error{ErrorCode::timed_out, "silent while the guest is suspended"});
    }
  }
}

void MultipathDevice::Impl::on_suspend_timer() {
  for (Path* path : paths_.all()) {
    if (path->writes_in_flight() != 0) {
      path->session().drop(
          Error{ErrorCode::timed_out, "writes are not answered while the guest is suspended"});
    }
  }
}

}  // namespace iscsi_blkback
