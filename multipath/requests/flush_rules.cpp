#include "multipath/requests/flush_rules.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

// What one path knows of the cache is old when another one has heard otherwise: the writes may have
// gone there, also through a path that is down or removed by now.
bool FlushRules::nothing_to_flush(const Path& path) const {
  return cache_.state() == WriteCache::off && path.logical_unit().write_cache() != WriteCache::on &&
         std::none_of(paths_.begin(), paths_.end(), [this](const Path* other) {
           return PathSet::has(paths_.up(), *other) &&
                  other->logical_unit().write_cache() == WriteCache::on;
         });
}

bool FlushRules::any_path_in_doubt() const {
  return std::any_of(paths_.begin(), paths_.end(),
                     [](const Path* path) { return path->identity() == Path::Identity::in_doubt; });
}

Path* FlushRules::path_that_flushes(PathMask among) const {
  const auto found = std::find_if(paths_.begin(), paths_.end(), [among](const Path* path) {
    return PathSet::has(among, *path) && !path->logical_unit().refuses_flushes();
  });
  return found != paths_.end() ? *found : nullptr;
}

Path* FlushRules::path_to_ask() const {
  const auto next =
      std::min_element(paths_.begin(), paths_.end(), [](const Path* left, const Path* right) {
        return std::pair(left->state() != PathState::up, left->asked_at()) <
               std::pair(right->state() != PathState::up, right->asked_at());
      });
  return next != paths_.end() && (*next)->state() == PathState::up ? *next : nullptr;
}

}  // namespace iscsi_blkback
