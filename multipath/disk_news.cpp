#include "multipath/disk_news.h"

#include <algorithm>
#include <chrono>

namespace iscsi_blkback {
namespace {

// How long the first good path waits for those that are just being asked, too.
constexpr std::chrono::milliseconds kFirstAnswersTime{100};

}  // namespace

DiskNews::DiskNews(Reactor& reactor, MultipathDevice& device, DiskObserver& observer,
                   const PathSet& paths, const LunTurn& turn, DiskIdentity& disk,
                   CapacityWatch& capacity)
    : device_(device),
      observer_(observer),
      paths_(paths),
      turn_(turn),
      disk_(disk),
      capacity_(capacity),
      first_answers_timer_(
          reactor, [](void* self) noexcept { static_cast<DiskNews*>(self)->tell_ready(); }, this) {}

void DiskNews::close() {
  closing_ = true;
  first_answers_timer_.stop();
}

void DiskNews::tell() {
  if (disk_.known() && !ready_told_) {
    const bool others_answer_soon = std::any_of(paths_.begin(), paths_.end(), [](const Path* path) {
      return path->session().state() == SessionState::in_login ||
             (path->state() == PathState::pending && path->identifying());
    });
    if (!others_answer_soon || !disk_.conflict().empty() || closing_) {
      tell_ready();
      return;
    }
    if (!first_answers_timer_.armed()) {
      first_answers_timer_.start_after(kFirstAnswersTime);
    }
  }
  tell_changes();
}

void DiskNews::tell_ready() {
  first_answers_timer_.stop();
  if (closing_) {
    return;
  }
  if (turn_.waits()) {
    tell_changes();  // LunTurn has it told again
    return;
  }
  if (!disk_.conflict().empty()) {
    observer_.on_conflict(device_, disk_.conflict());
    if (closing_) {
      return;  // the observer wants neither
    }
  }
  ready_told_ = true;
  disk_.set_in_use();
  (void)disk_.take_grown();
  capacity_.start();
  observer_.on_ready(device_);
  tell_changes();
}

void DiskNews::tell_changes() {
  if (ready_told_ && disk_.take_grown()) {
    observer_.on_grown(device_);
  }
  observer_.on_paths_changed(device_);
}

}  // namespace iscsi_blkback
