// Whether a path leads to a MultipathDevice's LUN, and how large that is. The first path that
// answers decides what the disk is; the others are compared with it at every login and whenever the
// target says that something may have changed.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// Largest capacity whose byte count still fits 63 bits.
constexpr std::uint64_t kMaxCapacityBytes = std::uint64_t{1} << 62;
// How often a quarantined path is asked who it is, where nothing is polled otherwise.
constexpr std::chrono::seconds kQuarantineLook{30};

}  // namespace

Result<void> MultipathDevice::Impl::check_identity(Path& path,
                                                   const LogicalUnitIdentity& identity) {
  facts_[path.index()].serial = identity.serial;
  if (options_.same_lun) {
    if (const auto other = other_lun(*options_.same_lun, identity)) {
      return fail(ErrorCode::conflict, "leads to another LUN: " + *other);
    }
  }
  if (options_.wwid && !is_called(identity.names, *options_.wwid)) {
    return fail(
        ErrorCode::conflict,
        fmt::format("leads to another LUN: its identity is \"{}\", the disk's wwid is \"{}\"",
                    identity.wwid, *options_.wwid));
  }
  if (identity.block_count == 0 && !ready_) {
    return {};  // not served here now, so that it can be no measure for others; nor is it used
  }
  const Result<void> checked = ready_ ? compare(path, identity) : adopt(path, identity);
  if (checked) {
    learn_names(path, identity);
  }
  if (ready_ && !ready_told_ && conflict_.empty()) {
    conflict_ = conflict_of(path, identity, checked);
  }
  if (checked && identity.block_count != 0) {
    limit_pieces(identity);
    if (!identity.access.refused) {
      note_write_cache(path, identity.write_cache);
    }
  }
  return checked;
}

// Answers that cross each other count for the worse.
void MultipathDevice::Impl::note_write_cache(const Path& path, WriteCache told) {
  if (told != WriteCache::off) {
    cache_told_at_ = reactor_.now();
    cache_ = cache_ == WriteCache::on ? WriteCache::on : told;
  } else if (!cache_told_at_ || path.asked_at() > *cache_told_at_) {
    cache_ = WriteCache::off;
  }
}

// Whose the serial number is depends on the grouping policy. Before the disk knows its LUN, the
// policy is what the array table would decide for this one.
std::optional<std::string> MultipathDevice::Impl::other_lun(
    const LunNames& names, const LogicalUnitIdentity& identity) const {
  return difference(names, identity.names, serial_number_is(identity));
}

SerialNumberIs MultipathDevice::Impl::serial_number_is(const LogicalUnitIdentity& identity) const {
  const PathGroupingPolicy grouping =
      ready_ ? policies_.path_grouping_policy
             : decide_policies(policy_settings_, options_.arrays.get(), &identity)
                   .path_grouping_policy;
  return grouping == PathGroupingPolicy::group_by_serial ? SerialNumberIs::the_paths
                                                         : SerialNumberIs::the_luns;
}

// What a path that answers together with the first one tells otherwise than that; empty: nothing. A
// LUN that is larger there is no other one, and yet nobody knows which size is meant.
std::string MultipathDevice::Impl::conflict_of(const Path& path,
                                               const LogicalUnitIdentity& identity,
                                               const Result<void>& checked) const {
  const std::string& portal = path.portal_name();
  if (other_lun(identity_.names, identity)) {
    return fmt::format("portal {} {}", portal, checked.error().message);
  }
  if (identity.block_count == 0) {
    return {};
  }
  if (identity.logical_block_bytes != identity_.logical_block_bytes) {
    return fmt::format("by portal {} the LUN has logical blocks of {} bytes, by portal {} of {}",
                       portal, identity.logical_block_bytes, identity_portal_,
                       identity_.logical_block_bytes);
  }
  if (identity.block_count != identity_.block_count) {
    return fmt::format("by portal {} the LUN has {} blocks, by portal {} it has {}", portal,
                       identity.block_count, identity_portal_, identity_.block_count);
  }
  return {};
}

// The least that any path has told: a request may go any way.
void MultipathDevice::Impl::limit_pieces(const LogicalUnitIdentity& identity) {
  const std::uint32_t block_sectors = identity.logical_block_bytes / kSectorBytes;
  // The expected data transfer length of a command has 32 bits.
  std::uint64_t blocks = 0xffffffffU / identity.logical_block_bytes;
  if (identity.max_transfer_blocks != 0) {
    blocks = std::min<std::uint64_t>(blocks, identity.max_transfer_blocks);
  }
  const auto sectors = static_cast<std::uint32_t>(blocks * block_sectors);
  piece_sectors_ = piece_sectors_ == 0 ? sectors : std::min(piece_sectors_, sectors);
}

Result<void> MultipathDevice::Impl::adopt(const Path& path, const LogicalUnitIdentity& identity) {
  const std::uint32_t block_bytes = identity.logical_block_bytes;
  if (!std::has_single_bit(block_bytes) || block_bytes < 512 || block_bytes > 4096) {
    return fail(ErrorCode::unsupported,
                fmt::format("its logical blocks are {} bytes; 512, 1024, 2048 and 4096 can be "
                            "served",
                            block_bytes));
  }
  if (identity.block_count == 0 || identity.block_count > kMaxCapacityBytes / block_bytes) {
    return fail(ErrorCode::unsupported,
                fmt::format("its capacity of {} blocks cannot be right", identity.block_count));
  }
  const std::uint32_t block_sectors = block_bytes / kSectorBytes;
  geometry_.sector_count = identity.block_count * block_sectors;
  geometry_.logical_block_bytes = block_bytes;
  geometry_.physical_block_bytes = std::max(identity.physical_block_bytes, block_bytes);
  geometry_.max_transfer_sectors = 0;  // larger requests go in pieces
  geometry_.read_only = options_.read_only || identity.write_protected;
  identity_ = identity;
  identity_target_ = path.session().options().target_name;
  identity_lun_ = path.lun();
  identity_portal_ = path.portal_name();
  names_at_barrier_.serial = serial_number_is(identity);
  (void)names_at_barrier_.add(identity.names, identity_target_);
  ready_ = true;
  enter_barrier();
  apply_policies();
  notify_.schedule();
  return {};
}

Result<void> MultipathDevice::Impl::compare(const Path& path,
                                            const LogicalUnitIdentity& identity) const {
  if (const auto other = other_lun(identity_.names, identity)) {
    return fail(ErrorCode::conflict,
                fmt::format("leads to another LUN than portal {}: {}", identity_portal_, *other));
  }
  // A LUN without any identity can be recognized by its place only.
  if (identity_.wwid.empty() &&
      (path.session().options().target_name != identity_target_ || path.lun() != identity_lun_)) {
    return fail(ErrorCode::conflict,
                "the LUN reports no identity, so that paths through another target or LUN number "
                "cannot be known to lead to it");
  }
  if (path.session().options().target_name != identity_target_ &&
      (!is_unique_in_the_world(barrier_name_of(identity_.names)) ||
       !share_a_unique_name(identity_.names, identity.names))) {
    return fail(
        ErrorCode::conflict,
        fmt::format("the LUN's identity \"{}\" is none that is unlike all others in the "
                    "world, so that a path through the target {} cannot be known to lead "
                    "to the LUN of {}",
                    identity_.wwid, path.session().options().target_name, identity_target_));
  }
  if (identity.block_count == 0) {
    return {};  // not served here now; the rest is compared before it is used
  }
  if (identity.logical_block_bytes != identity_.logical_block_bytes) {
    return fail(
        ErrorCode::conflict,
        fmt::format("its logical blocks are {} bytes, the disk's (by portal {}) are {}",
                    identity.logical_block_bytes, identity_portal_, identity_.logical_block_bytes));
  }
  // A LUN that is known to be the same and has grown serves the disk as before; see
  // grow_if_all_agree().
  if (identity.block_count < identity_.block_count) {
    return fail(
        ErrorCode::conflict,
        fmt::format("the LUN is smaller than the disk, whose guest may have data behind its "
                    "end: its capacity is {} blocks, the disk's (by portal {}) is {}",
                    identity.block_count, identity_portal_, identity_.block_count));
  }
  if (identity_.wwid.empty() && identity.block_count != identity_.block_count) {
    return fail(ErrorCode::conflict,
                fmt::format("its capacity is {} blocks, the disk's (by portal {}) is {}",
                            identity.block_count, identity_portal_, identity_.block_count));
  }
  return {};
}

// With the least that a path has told, when none is just being asked. Others than the one that has
// told more than the disk's size may know by now, too.
void MultipathDevice::Impl::grow_if_all_agree(const Path* changed) {
  if (!options_.grows || !ready_ || closing_) {
    return;
  }
  std::uint64_t least = kMaxCapacityBytes / geometry_.logical_block_bytes;
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
  if (up_ == 0 || least <= identity_.block_count) {
    return;
  }
  log_limited(log_limiter_, reactor_.now(), LogLevel::info, "multipath",
              "{}: all paths see {} blocks of {} bytes, before {}: the disk has grown",
              options_.alias, least, geometry_.logical_block_bytes, identity_.block_count);
  identity_.block_count = least;
  geometry_.sector_count = least * (geometry_.logical_block_bytes / kSectorBytes);
  grown_ = true;
  notify_.schedule();
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
