#include <algorithm>
#include <utility>

#include "tests/simulation/disk_simulation_impl.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

// For a while, the disk does without the path; a session without any path is stopped.
void Simulation::remove_path(std::size_t disk, std::size_t portal, Duration length) {
  // A session must not go while a former life of the disk has something there.
  if (!uses_[portal].removed[disk] && !disks_[disk]->has_former_life() &&
      disks_[disk]->remove_path(*sessions_[portal])) {
    ++result_.removed_paths;
    uses_[portal].removed[disk] = true;
    later(length, [this, disk, portal] { add_path_again(disk, portal); });
  }
}

void Simulation::path_removed(std::uint16_t /*lun_number*/, Session& session) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const auto& one) { return one.get() == &session; });
  SessionUse& use = uses_[static_cast<std::size_t>(found - sessions_.begin())];
  if (--use.users == 0) {
    use.stopping = true;
    session.stop(
        [](void* stopped) noexcept {
          static_cast<SessionUse*>(stopped)->stopping = false;
          static_cast<SessionUse*>(stopped)->stopped = true;
        },
        &use);
  }
}

void Simulation::add_path_again(std::size_t disk, std::size_t portal) {
  SessionUse& use = uses_[portal];
  if (closing_ || !use.removed[disk]) {
    return;
  }
  const bool leaving = use.users > static_cast<std::size_t>(
                                       std::count(use.removed.begin(), use.removed.end(), false));
  if (leaving || use.stopping) {  // its last requests, or its fence
    later(milliseconds(20), [this, disk, portal] { add_path_again(disk, portal); });
    return;
  }
  if (std::exchange(use.stopped, false)) {
    sessions_[portal]->start();
  }
  ++use.users;
  use.removed[disk] = false;
  disks_[disk]->add_path(*sessions_[portal]);
}

void Simulation::change_policies() {
  PathPolicySettings changes;
  changes.path_selector = static_cast<PathSelectorKind>(random_.below(4));
  changes.path_grouping_policy = static_cast<PathGroupingPolicy>(random_.below(5));
  disks_[random_.below(disks_.size())]->device().change_policies(changes);
}

// Detached and attached again, with something to leave behind.
void Simulation::lose_disk(std::size_t disk, std::size_t portal, Duration length) {
  lose_writes(portal, length);
  later(random_duration(milliseconds(200)), [this, disk] {
    if (!faults_ended_) {
      attach_again(disk);
    }
  });
}

void Simulation::attach_again(std::size_t disk) {
  if (!disks_[disk]->can_be_attached_again()) {
    return;
  }
  std::vector<Session*> sessions;
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    if (!uses_[portal].removed[disk]) {
      sessions.push_back(sessions_[portal].get());
    }
  }
  ++result_.reattached;
  disks_[disk]->attach_again(sessions);
}

void Simulation::suspend(std::size_t disk, Duration length) {
  ++result_.suspended;
  disks_[disk]->device().set_guest({GuestState::suspended});
  later(length, [this, disk] {
    if (!closing_) {
      disks_[disk]->device().set_guest({GuestState::runs});
    }
  });
}

}  // namespace iscsi_blkback
