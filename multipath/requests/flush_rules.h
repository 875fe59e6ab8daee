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

// A flush that a path has refused, in words that no other form of the command would change.
struct RefusedFlush {
  bool identity_known = true;     // of the path; else what has been read of the LUN may not hold
  bool nothing_to_flush = false;  // see FlushRules
  bool for_good = false;          // the LUN does not do that; else it may pass
  bool closing = false;
  bool another_flushes = false;  // a path that is up
  bool has_cache = false;        // is known
  bool out_of_waits = false;
};

enum class FlushStep : std::uint8_t {
  like_others,     // what the error says of any request
  as_if_not_sent,  // it has not reached the disk's LUN, as far as is known
  succeed,
  resend,
  wait,     // and be sent then
  give_up,  // no flush can be had
};

// Without a cache there is nothing to flush, in whatever words that is refused. With one, or where
// nobody knows, no other answer than that of a path that flushes is worth anything: what is refused
// for good everywhere is said to be, and what may pass is tried again.
[[nodiscard]] constexpr FlushStep next_flush_step(const RefusedFlush& facts) {
  if (!facts.identity_known) {
    return FlushStep::as_if_not_sent;
  }
  if (facts.nothing_to_flush) {
    return FlushStep::succeed;
  }
  if (!facts.for_good) {
    return FlushStep::like_others;
  }
  if (facts.closing) {
    return FlushStep::give_up;
  }
  if (facts.another_flushes) {
    return FlushStep::resend;
  }
  return facts.has_cache || facts.out_of_waits ? FlushStep::give_up : FlushStep::wait;
}

class FlushRules {
 public:
  explicit FlushRules(const PathSet& paths) : paths_(paths) {}

  [[nodiscard]] WriteCacheView& cache() { return cache_; }
  [[nodiscard]] const WriteCacheView& cache() const { return cache_; }
  [[nodiscard]] LossNotice& loss() { return loss_; }

  // A flush is needless at the path: there is nothing to flush, and no path is just being asked.
  [[nodiscard]] bool is_needless(const Path& path) const {
    return path.identity() == Path::Identity::known && nothing_to_flush(path) &&
           !any_path_in_doubt();
  }
  // Where a flush goes for which that path was chosen. nullptr: nowhere, there is nothing to flush.
  [[nodiscard]] Path* path_for_flush(Path& chosen) const;

  // What a flush does next that its path has refused. waits: how often it has waited so far for the
  // paths to tell whether there is a cache; they are asked for that.
  struct Next {
    FlushStep step;
    Path* path = nullptr;  // resend and wait: rather there
    Duration wait{};
  };
  [[nodiscard]] Next after_refusal(const PathCommand& flush, std::uint8_t& waits, bool closing);

 private:
  // No write that has been answered is in a cache, as far as the path and all others know.
  [[nodiscard]] bool nothing_to_flush(const Path& path) const;
  [[nodiscard]] bool any_path_in_doubt() const;
  // One of these paths whose LUN has not refused flushes; nullptr: there is none.
  [[nodiscard]] Path* path_that_flushes(PathMask among) const;
  void ask_for_cache();

  const PathSet& paths_;
  WriteCacheView cache_;
  LossNotice loss_;
};

}  // namespace iscsi_blkback
