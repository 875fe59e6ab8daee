#include "multipath/multipath_device.h"

#include <fmt/format.h>

#include <utility>

#include "multipath/disk_snapshot.h"
#include "multipath/part_options.h"

namespace iscsi_blkback {

MultipathDevice::MultipathDevice(Reactor& reactor, SharedFencing& fencing, MultipathOptions options,
                                 Observer& observer)
    : reactor_(reactor),
      options_(std::move(options)),
      observer_(observer),
      steps_(
          reactor, [](void* self) noexcept { static_cast<MultipathDevice*>(self)->settle(); },
          this),
      log_(reactor, options_.alias),
      registrations_(fencing.registrations),
      groups_(reactor, group_options(options_), paths_, steps_, log_, *this),
      activator_(reactor, options_.checker_timeout, paths_, ghosts_, groups_, steps_, log_),
      disk_(wanted_identity(options_)),
      turn_(reactor, turn_options(options_), fencing, paths_, steps_, log_, *this),
      fence_(reactor, fence_options(options_), fencing, paths_, groups_, activator_, turn_, steps_,
             log_, *this),
      queue_(reactor, queue_options(options_), paths_, groups_, fence_, turn_, steps_, log_),
      outages_(reactor, groups_.policies().no_path_retry, paths_, activator_, queue_, steps_, log_),
      drain_(reactor, paths_),
      silent_(paths_, groups_, queue_.hedger(), steps_),
      capacity_(reactor, capacity_options(options_), paths_, disk_, log_),
      removals_(reactor, fence_, steps_, log_, *this),
      news_(reactor, *this, observer, paths_, turn_, disk_, capacity_),
      end_(queue_, removals_, paths_, turn_, fence_) {}

MultipathDevice::~MultipathDevice() {
  ISCSI_BLKBACK_ASSERT(end_.over());
}

Result<void> MultipathDevice::add_path(Session& session, std::uint16_t lun,
                                       std::string portal_name) {
  ISCSI_BLKBACK_ASSERT(!end_.begun());
  if (portal_name.empty()) {
    portal_name = session.options().portal_name;
  }
  const Result<std::uint32_t> index = paths_.number_for(session, lun, portal_name, options_.alias);
  if (!index) {
    return tl::unexpected(index.error());
  }
  groups_.add_path(*index);
  fence_.add(session);
  Path& path = paths_.add(std::make_unique<Path>(
      reactor_, session, lun, std::move(portal_name), *index, paths_.load_of(*index),
      path_options(options_, groups_.policies().path_checker, registrations_), log_,
      static_cast<Path::Owner&>(*this)));
  turn_.path_added(path);
  groups_.update_priorities();
  path.start();
  if (session.login_epoch() != 0) {
    turn_.tell_nexus(path);  // of a session that others have brought up; else its login tells
  }
  return {};
}

Result<void> MultipathDevice::remove_path(const Session& session, std::uint16_t lun) {
  ISCSI_BLKBACK_ASSERT(!end_.begun());
  const Result<Path*> found = paths_.removable(session, lun, options_.alias);
  if (!found) {
    return tl::unexpected(found.error());
  }
  Path& path = **found;
  log_.info("path {} of LUN {} is removed, {} requests are outstanding there", path.portal_name(),
            lun, path.in_flight());
  fence_.forget_carrier(path);
  paths_.retire(path);
  removals_.add(path);
  groups_.retire_path(path);
  paths_.note_room();
  paths_.note_room(path);
  activator_.forget(path);
  steps_.due(DiskStep::follow_paths);
  steps_.due(DiskStep::tell);
  return {};
}

void MultipathDevice::on_path_session_up(Path& path) noexcept {
  silent_.forget(path);
  fence_.on_session_up(path);
}

Result<void> MultipathDevice::check_identity(Path& path, const LogicalUnitIdentity& identity) {
  const std::string& target_name = path.session().options().target_name;
  const SerialNumberIs serial = groups_.serial_number_is(identity, disk_.known());
  const bool knew = disk_.known();
  Result<void> checked =
      disk_.check({path.portal_name(), target_name, path.lun()}, identity, serial);
  if (!checked || !disk_.known()) {
    return checked;
  }
  queue_.set_limits(disk_.piece_sectors(), disk_.discards(), geometry().read_only);
  if (!knew) {
    activator_.set_known();
    fence_.set_known();
    turn_.enter(identity.names, target_name, path.lun(), serial, geometry().read_only);
    apply_policies();
    steps_.due(DiskStep::tell);
  }
  turn_.learn(identity.names, target_name, serial);
  if (identity.block_count != 0 && !identity.access.refused) {
    queue_.cache().note(identity.write_cache, path.asked_at(), reactor_.now());
  }
  return checked;
}

void MultipathDevice::on_path_changed(Path& path) noexcept {
  if (paths_.is_leaving(path)) {
    return;
  }
  paths_.note_state(path);
  steps_.due(DiskStep::follow_paths);
  steps_.due(DiskStep::tell);
}

void MultipathDevice::settle() {
  while (const auto step = steps_.take_next({.closing = end_.begun()})) {
    switch (*step) {
      case DiskStep::follow_paths:
        follow_paths();
        break;
      case DiskStep::activate:
        activator_.look();
        break;
      case DiskStep::follow_outage:
        outages_.follow();
        break;
      case DiskStep::look_at_others:
        turn_.look();
        break;
      case DiskStep::release_held:
        queue_.release_held();
        break;
      case DiskStep::hedge:
        queue_.hedger().look();
        break;
      case DiskStep::pump:
        queue_.pump();
        break;
      case DiskStep::finish_removals:
        removals_.look();
        break;
      case DiskStep::tell:
        news_.tell();
        break;
      case DiskStep::check_closed:
        end_.check(steps_);
        return;  // may have deleted the device
    }
  }
}

void MultipathDevice::follow_paths() {
  const PathSet::Changes changes = paths_.take_changes();
  for (Path* path : paths_) {
    if (PathSet::has(changes.failed, *path)) {
      silent_.on_failed(*path);
    }
    if (!PathSet::has(changes.states, *path)) {
      continue;
    }
    if (PathSet::has(paths_.up(), *path)) {
      fence_.register_key(*path);
    } else if (path->state() == PathState::quarantined) {
      capacity_.on_quarantined();
    }
  }
  if (changes.had_path && paths_.up() == 0) {
    activator_.on_all_lost();
  }
  groups_.follow_closely();
  for (Path* path : paths_) {
    if (PathSet::has(changes.states, *path)) {
      groups_.on_state(path->index(), path->state());
      activator_.on_state(path->index(), path->state());
      capacity_.ask_others_than(*path);
    }
  }
  groups_.reconsider();
  groups_.note_group_in_use();
  activator_.activate_if_needed();
  if (capacity_.grow_if_all_agree()) {
    steps_.due(DiskStep::tell);
  }
  outages_.on_paths(changes.had_path);
  steps_.due(DiskStep::follow_outage);
  steps_.due(DiskStep::hedge);
  steps_.due(DiskStep::pump);
}

void MultipathDevice::set_no_path_retry(std::optional<NoPathRetry> wait) {
  groups_.set_no_path_retry(wait);
  apply_policies();
}

void MultipathDevice::change_policies(const PathPolicySettings& changes) {
  groups_.overrule(changes);
  apply_policies();
  steps_.due(DiskStep::pump);
}

void MultipathDevice::apply_policies() {
  const PathPolicies before = groups_.decide(ready() ? &disk_.lun() : nullptr);
  outages_.set_wait(groups_.policies().no_path_retry);
  groups_.update_priorities();
  if (!end_.begun()) {
    fence_.look_for_trials_soon();
    groups_.follow(before);
    steps_.due(DiskStep::tell);
  }
}

void MultipathDevice::on_path_access(Path& path) noexcept {
  groups_.on_access(path);
  steps_.due(DiskStep::activate);
}

void MultipathDevice::on_withdrawn() noexcept {
  end_.on_withdrawn();
  removals_.on_withdrawn();
  steps_.due_to_end();
}

void MultipathDevice::close(bool wait_for_fences, void (*on_closed)(void* owner) noexcept,
                            void* owner) {
  end_.begin(wait_for_fences, on_closed, owner);
  fence_.close();
  outages_.close();
  groups_.close();
  capacity_.close();
  news_.close();
  removals_.close();
  turn_.close();
  queue_.close();
  paths_.withdraw_unsent();
  activator_.close();
  for (Path* path : paths_) {
    path->stop();
  }
  steps_.due(DiskStep::check_closed);
}

void MultipathDevice::forget_path(Path& path) {
  const std::uint32_t index = path.index();
  queue_.forget_path(index);
  turn_.path_leaves(path);
  silent_.forget(path);
  groups_.remove_path(index);
  paths_.remove(index);
}

void MultipathDevice::on_path_removed(Session& session) noexcept {
  observer_.on_path_removed(*this, session);
  steps_.due(DiskStep::tell);
}

void MultipathDevice::set_guest(const GuestNow& guest) {
  const bool was_suspended = suspended();
  guest_ = guest.state;
  groups_.set_suspended(suspended());
  queue_.set_suspended(suspended());
  turn_.set_guest(guest);
  if (suspended()) {
    outages_.suspend(guest_);
  }
  if (suspended() == was_suspended) {
    return;
  }
  if (suspended()) {
    fence_.suspend();
    paths_.withdraw_unsent();
    activator_.suspend();
    drain_.start();
  } else {
    drain_.stop();
    fence_.resume();
    turn_.want_look();  // another disk may have come meanwhile
    steps_.due(DiskStep::hedge);
    fence_.look_for_trials_soon();
    outages_.resume();
    activator_.resume();
    steps_.due(DiskStep::pump);
  }
}

MultipathSnapshot MultipathDevice::snapshot() const {
  return snapshot_of({options_.alias, paths_, groups_, activator_, disk_, turn_, fence_, queue_,
                      outages_, removals_},
                     reactor_.now());
}

}  // namespace iscsi_blkback
