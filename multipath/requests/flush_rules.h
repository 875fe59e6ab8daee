// FlushRules: what a flush is worth at a disk's paths. A LUN without a write cache has nothing to
// flush, in whatever words it refuses that; with one, or where nobody knows, no other answer
// counts than that of a path that flushes; and data that the target has lost must not be flushed
// with success. Owned by RequestQueue. Reactor thread.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/loss_notice.h"
#include "multipath/requests/write_cache_view.h"

namespace iscsi_blkback {

class FlushRules {
 public:
  explicit FlushRules(const PathSet& paths) : paths_(paths) {}

  [[nodiscard]] WriteCacheView& cache() { return cache_; }
  [[nodiscard]] const WriteCacheView& cache() const { return cache_; }
  [[nodiscard]] LossNotice& loss() { return loss_; }

  // No write that has been answered is in a cache, as far as the path and all others know.
  [[nodiscard]] bool nothing_to_flush(const Path& path) const;
  // A flush is needless at the path: there is nothing to flush, and no path is just being asked.
  [[nodiscard]] bool is_needless(const Path& path) const {
    return path.identity() == Path::Identity::known && nothing_to_flush(path) &&
           !any_path_in_doubt();
  }
  [[nodiscard]] bool any_path_in_doubt() const;
  // One of these paths whose LUN has not refused flushes; nullptr: there is none.
  [[nodiscard]] Path* path_that_flushes(PathMask among) const;
  // The path, which is up, that was asked longest ago who it is; nullptr: none is up.
  [[nodiscard]] Path* path_to_ask() const;

 private:
  const PathSet& paths_;
  WriteCacheView cache_;
  LossNotice loss_;
};

}  // namespace iscsi_blkback
