#include "multipath/groups/ghost_paths.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

template <class Predicate>
PathMask those_of(const PathSet& paths, Predicate&& is) {
  PathMask those = 0;
  for (const Path* path : paths) {
    those |= is(*path) ? path_bit(path->index()) : 0;
  }
  return those;
}

}  // namespace

PathMask GhostPaths::tellable() const {
  return those_of(paths_,
                  [](const Path& path) { return !path.activating() && path.can_activate(); });
}

PathMask GhostPaths::awaiting_answer() const {
  return those_of(paths_, [](const Path& path) { return path.awaits_answer(); });
}

bool GhostPaths::answer_is_near(bool reads_count) const {
  return std::any_of(paths_.begin(), paths_.end(), [reads_count](const Path* path) {
    return path->answers_soon() || (reads_count && path->reading_access());
  });
}

void GhostPaths::withdraw() {
  for (Path* path : paths_.all()) {
    path->withdraw_activation();
  }
}

void GhostPaths::refresh_access(PathMask paths) {
  for (Path* path : paths_) {
    if (PathSet::has(paths, *path)) {
      path->refresh_access();
    }
  }
}

}  // namespace iscsi_blkback
