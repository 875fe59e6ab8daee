#include "multipath/requests/flush_rules.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace iscsi_blkback {
namespace {

// A flush that one path's LUN refuses waits so long for room on a path that takes it.
constexpr std::chrono::milliseconds kFlushElsewhereDelay{50};
// Where nobody has told whether there is a cache, a flush waits so often before the guest's disk is
// given up: what keeps the LUN from telling (a reservation, a controller that starts) may pass.
constexpr std::uint8_t kCacheWaits = 12;
constexpr std::chrono::seconds kCacheWait{1};

}  // namespace

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

Path* FlushRules::path_for_flush(Path& chosen) const {
  if (!chosen.logical_unit().refuses_flushes()) [[likely]] {
    return &chosen;
  }
  if (nothing_to_flush(chosen)) {
    return any_path_in_doubt() ? &chosen : nullptr;
  }
  Path* const other = path_that_flushes(paths_.able());
  return other != nullptr ? other : &chosen;
}

FlushRules::Next FlushRules::after_refusal(const PathCommand& flush, std::uint8_t& waits,
                                           bool closing) {
  Path& path = *flush.path;
  const bool for_good = refuses_form(flush.task);
  if (for_good && !closing && path.logical_unit().try_other_form(flush.task)) {
    return {FlushStep::resend, &path};
  }
  Path* const other = path_that_flushes(paths_.up());
  const FlushStep step =
      next_flush_step({.identity_known = path.identity() == Path::Identity::known,
                       .nothing_to_flush = nothing_to_flush(path),
                       .for_good = for_good,
                       .closing = closing,
                       .another_flushes = other != nullptr,
                       .has_cache = cache_.state() == WriteCache::on,
                       .out_of_waits = waits == kCacheWaits});
  if (step == FlushStep::resend && !PathSet::has(paths_.able(), *other)) {
    return {FlushStep::wait, other, kFlushElsewhereDelay};
  }
  if (step == FlushStep::wait) {
    ++waits;
    ask_for_cache();
    return {step, nullptr, kCacheWait};
  }
  return {step, step == FlushStep::resend ? other : nullptr};
}

// One path after the other: the guest's other requests go by the rest. The one, of those that are
// up, that was asked longest ago who it is.
void FlushRules::ask_for_cache() {
  if (any_path_in_doubt()) {
    return;
  }
  const auto next =
      std::min_element(paths_.begin(), paths_.end(), [](const Path* left, const Path* right) {
        return std::pair(left->state() != PathState::up, left->asked_at()) <
               std::pair(right->state() != PathState::up, right->asked_at());
      });
  if (next != paths_.end() && (*next)->state() == PathState::up) {
    (*next)->verify("it is asked again whether it has a write cache");
  }
}

}  // namespace iscsi_blkback
