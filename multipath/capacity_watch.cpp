#include "multipath/capacity_watch.h"

#include <algorithm>
#include <cstdint>

namespace iscsi_blkback {
namespace {

// How often a quarantined path is asked who it is, where nothing is polled otherwise.
constexpr std::chrono::seconds kQuarantineLook{30};

}  // namespace

CapacityWatch::CapacityWatch(Reactor& reactor, const Options& options, const PathSet& paths,
                             DiskIdentity& disk, DiskLog& log)
    : reactor_(reactor),
      options_(options),
      paths_(paths),
      disk_(disk),
      log_(log),
      timer_(
          reactor, [](void* self) noexcept { static_cast<CapacityWatch*>(self)->on_timer(); },
          this) {}

void CapacityWatch::start() {
  timer_.start_after(with_jitter(
      options_.interval.count() != 0 ? options_.interval : kQuarantineLook, reactor_.random()));
}

void CapacityWatch::on_quarantined() {
  if (!timer_.armed()) {
    start();  // the disk may not be in use before it leads there
  }
  for (Path* path : paths_) {
    if (path->state() == PathState::up) {
      path->look_at_capacity();
    }
  }
}

void CapacityWatch::close() {
  closed_ = true;
  timer_.stop();
}

void CapacityWatch::ask_others_than(const Path& changed) {
  if (!options_.grows || !disk_.known() || changed.state() != PathState::up) {
    return;
  }
  for (Path* path : paths_) {
    if (path->state() == PathState::up && path->block_count() != 0 &&
        path->block_count() < changed.block_count()) {
      path->look_at_capacity();
    }
  }
}

// With the least that a path has told, when none is just being asked.
bool CapacityWatch::grow_if_all_agree() {
  if (!options_.grows || !disk_.known() || closed_) {
    return false;
  }
  const std::uint32_t block_bytes = disk_.geometry().logical_block_bytes;
  std::uint64_t least = DiskIdentity::kMaxCapacityBytes / block_bytes;
  for (const Path* path : paths_) {
    if (path->identifying()) {
      return false;
    }
    if (path->state() == PathState::up && path->block_count() != 0) {
      least = std::min(least, path->block_count());
    }
  }
  const std::uint64_t before = disk_.lun().block_count;
  if (paths_.up() == 0 || !disk_.grow_to(least)) {
    return false;
  }
  log_.info("all paths see {} blocks of {} bytes, before {}: the disk has grown", least,
            block_bytes, before);
  return true;
}

void CapacityWatch::on_timer() {
  PathMask asking = 0;
  for (const Path* path : paths_) {
    asking |= asks(*path) ? path_bit(path->index()) : 0;
  }
  for (Path* path : paths_) {
    if (PathSet::has(asking, *path)) {
      path->look_at_capacity();
    }
  }
  start();
}

// Of the paths that lead to the same LUN number of a target, one asks for all. When it hears
// something new, so do the others: see grow_if_all_agree() and on_quarantined(). A quarantined one
// asks for itself, and nobody else does where the size is not polled for.
bool CapacityWatch::asks(const Path& path) const {
  if (path.state() == PathState::quarantined) {
    return true;
  }
  if (options_.interval.count() == 0) {
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
