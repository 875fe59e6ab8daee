#include "multipath/path/suspend_drain.h"

#include <chrono>

namespace iscsi_blkback {
namespace {

constexpr std::chrono::milliseconds kSuspendDrain{50};

}  // namespace

SuspendDrain::SuspendDrain(Reactor& reactor, const PathSet& paths)
    : paths_(paths),
      timer_(
          reactor, [](void* self) noexcept { static_cast<SuspendDrain*>(self)->on_timer(); },
          this) {}

void SuspendDrain::start() {
  for (Path* path : paths_.all()) {
    if (PathSet::has(paths_.suspect(), *path) &&
        path->session().state() == SessionState::logged_in) {
      path->session().drop(Error{ErrorCode::timed_out, "silent while the guest is suspended"});
    }
  }
  timer_.start_after(kSuspendDrain);
}

void SuspendDrain::on_timer() {
  for (Path* path : paths_.all()) {
    if (path->writes_in_flight() != 0) {
      path->session().drop(
          Error{ErrorCode::timed_out, "writes are not answered while the guest is suspended"});
    }
  }
}

}  // namespace iscsi_blkback
