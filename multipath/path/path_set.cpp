#include "multipath/path/path_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace iscsi_blkback {

Result<std::uint32_t> PathSet::number_for(const Session& session, std::uint16_t lun,
                                          const std::string& portal_name,
                                          const std::string& disk_name) const {
  if (find(session, lun) != nullptr) {
    return fail(ErrorCode::conflict,
                fmt::format("{} has the path by {} already", disk_name, portal_name));
  }
  if (auto room = has_room(disk_name); !room) {
    return tl::unexpected(room.error());
  }
  const auto unused = std::find(slots_.begin(), slots_.end(), nullptr);
  return static_cast<std::uint32_t>(unused - slots_.begin());
}

Result<void> PathSet::has_room(const std::string& disk_name) const {
  if (all_.size() == kMaxPaths) {
    return fail(ErrorCode::exhausted,
                fmt::format("{} has {} paths already, no more are made", disk_name, kMaxPaths));
  }
  return {};
}

Result<Path*> PathSet::removable(const Session& session, std::uint16_t lun,
                                 const std::string& disk_name) const {
  Path* const path = find(session, lun);
  if (path == nullptr || is_leaving(*path)) {
    return fail(ErrorCode::not_found,
                fmt::format("{} has no path by {}", disk_name, session.options().portal_name));
  }
  if (size() == 1) {
    return fail(ErrorCode::conflict,
                fmt::format("the path by {} is the only one of {}: add another one first, or "
                            "detach the disk",
                            path->portal_name(), disk_name));
  }
  return path;
}

Path& PathSet::add(std::unique_ptr<Path> path) {
  const std::uint32_t index = path->index();
  if (index == slots_.size()) {
    slots_.emplace_back();
  }
  ISCSI_BLKBACK_ASSERT(slots_[index] == nullptr);
  slots_[index] = std::move(path);
  Path* const added = slots_[index].get();
  in_use_.push_back(added);
  all_.insert(std::find_if(all_.begin(), all_.end(),
                           [index](const Path* other) { return other->index() > index; }),
              added);
  return *added;
}

void PathSet::retire(Path& path) {
  const PathMask bit = path_bit(path.index());
  std::erase(in_use_, &path);
  changes_.had_path = changes_.had_path || up_ != 0;
  changes_.states &= ~bit;
  leaving_ |= bit;
  up_ &= ~bit;
  ghost_ &= ~bit;
}

void PathSet::remove(std::uint32_t index) {
  const PathMask bit = path_bit(index);
  leaving_ &= ~bit;
  suspect_ &= ~bit;
  std::erase(all_, slots_[index].get());
  slots_[index].reset();
}

Path* PathSet::find(const Session& session, std::uint16_t lun) const {
  const auto found = std::find_if(all_.begin(), all_.end(), [&](const Path* path) {
    return &path->session() == &session && path->lun() == lun;
  });
  return found == all_.end() ? nullptr : *found;
}

// A target that asks for a logout (EqualLogic does, to balance its ports) has not failed, nor has a
// controller that gives the LUN to another one.
void PathSet::note_state(const Path& path) {
  note_state(path.index(), {.state = path.state(),
                            .blameless = path.finding() == CheckerFinding::access_state ||
                                         path.session().state() == SessionState::in_logout});
}

void PathSet::note_state(std::uint32_t index, const PathFacts& facts) {
  const PathMask bit = path_bit(index);
  const bool failed = (up_ & bit) != 0 && facts.state == PathState::down && !facts.blameless;
  changes_.states |= bit;
  changes_.failed |= failed ? bit : 0;
  changes_.had_path = changes_.had_path || up_ != 0;
  const bool up = facts.state == PathState::up && (held_back_ & bit) == 0;
  up_ = up ? up_ | bit : up_ & ~bit;
  ghost_ = facts.state == PathState::ghost ? ghost_ | bit : ghost_ & ~bit;
  note_room();
}

void PathSet::note_suspect(const Path& path, bool suspect) {
  const PathMask bit = path_bit(path.index());
  suspect_ = suspect ? suspect_ | bit : suspect_ & ~bit;
  note_room();
}

bool PathSet::note_room(std::uint32_t index, bool has_room) {
  const PathMask bit = path_bit(index);
  const bool used =
      (up_ & ~held_back_ & bit) != 0 && ((suspect_ & bit) == 0 || (up_ & ~suspect_) == 0);
  const bool out_of_use = (used_ & bit) != 0 && !used;
  used_ = used ? used_ | bit : used_ & ~bit;
  eligible_ = used && has_room ? eligible_ | bit : eligible_ & ~bit;
  return out_of_use;
}

void PathSet::note_room(Path& path) {
  if (note_room(path.index(), path.able())) {
    path.withdraw_unsent();
  }
}

void PathSet::note_room() {
  for (Path* path : in_use_) {
    note_room(*path);
  }
}

void PathSet::withdraw_unsent() {
  for (Path* path : all_) {
    path->withdraw_unsent();
  }
}

Path* PathSet::release_held_back() {
  const PathMask held_back = std::exchange(held_back_, 0);
  return held_back == 0 ? nullptr
                        : slots_[static_cast<std::uint32_t>(std::countr_zero(held_back))].get();
}

}  // namespace iscsi_blkback
