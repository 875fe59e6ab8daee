// What a path's LUN tells a MultipathDevice, and how large the disk's LUN is (disk_identity.h).
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// How often a quarantined path is asked who it is, where nothing is polled otherwise.
constexpr std::chrono::seconds kQuarantineLook{30};

}  // namespace

Result<void> MultipathDevice::Impl::check_identity(Path& path,
                                                   const LogicalUnitIdentity& identity) {
  const std::string& target_name = path.session().options().target_name;
  const SerialNumberIs serial = groups_.serial_number_is(identity, disk_.known());
  const bool knew = disk_.known();
  Result<void> checked =
      disk_.check({path.portal_name(), target_name, path.lun()}, identity, serial);
  if (!checked || !disk_.known()) {
    return checked;
  }
  queue_.set_limits(disk_.piece_sectors(), geometry().read_only);
  if (!knew) {
    activator_.set_known();
    fence_.set_known();
    turn_.enter(identity.names, target_name, path.lun(), serial, geometry().read_only);
    apply_policies();
    notify_.schedule();
  }
  turn_.learn(identity.names, target_name, serial);
  if (identity.block_count != 0 && !identity.access.refused) {
    queue_.cache().note(identity.write_cache, path.asked_at(), reactor_.now());
  }
  return checked;
}

// With the least that a path has told, when none is just being asked. Others than the one that has
// told more than the disk's size may know by now, too.
void MultipathDevice::Impl::grow_if_all_agree(const Path* changed) {
  if (!options_.grows || !disk_.known() || closing_) {
    return;
  }
  std::uint64_t least = DiskIdentity::kMaxCapacityBytes / geometry().logical_block_bytes;
  for (Path* path : paths_) {
    if (path->identifying()) {
      return;
    }
    if (path->state() == PathState::up && path->block_count() != 0) {
      if (changed != nullptr && path->block_count() < changed->block_count() &&
          changed->state() == PathState::up) {
        path->look_at_capacity();
      }
      least = std::min(least, path->block_count());
    }
  }
  const std::uint64_t before = disk_.lun().block_count;
  if (paths_.up() != 0 && disk_.grow_to(least)) {
    log_.info("all paths see {} blocks of {} bytes, before {}: the disk has grown", least,
              geometry().logical_block_bytes, before);
    notify_.schedule();
  }
}

// Quarantined paths are looked at in any case: nothing else tells that they lead to the disk again.
void MultipathDevice::Impl::start_capacity_timer() {
  const auto interval = options_.capacity_polling_interval;
  capacity_timer_.start_after(
      with_jitter(interval.count() != 0 ? interval : kQuarantineLook, reactor_.random()));
}

void MultipathDevice::Impl::on_capacity_timer() {
  PathMask asking = 0;
  for (const Path* path : paths_) {
    asking |= asks_for_capacity(*path) ? path_bit(path->index()) : 0;
  }
  for (Path* path : paths_) {
    if ((asking & path_bit(path->index())) != 0) {
      path->look_at_capacity();
    }
  }
  start_capacity_timer();
}

// Of the paths that lead to the same LUN number of a target, one asks for all. When it hears
// something new, so do the others: see grow_if_all_agree() and on_path_changed(). A quarantined one
// asks for itself, and nobody else does where the size is not polled for.
bool MultipathDevice::Impl::asks_for_capacity(const Path& path) const {
  if (path.state() == PathState::quarantined) {
    return true;
  }
  if (options_.capacity_polling_interval.count() == 0) {
    return false;
  }
  for (const Path* other : paths_) {
    if (other == &path || path.state() != PathState::up) {
      return true;
    }
    if (other->state() == PathState::up && !other->looking_at_capacity() &&
        other->lun() == path.lun() && other->block_count() == path.block_count() &&
        other->session().options().target_name == path.session().options().target_name) {
      return false;
    }
  }
  return true;
}

}  // namespace iscsi_blkback
