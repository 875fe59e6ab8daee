// PathSelector: which of a group's paths takes the next request. Paths are numbered; who may take
// one at all (up, and with room in its queue) is a mask that the caller keeps. The choices are
// those of dm-mpath's path selectors of the same names. Nothing allocates but add_path(). Reactor
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

// The names are multipath.conf's.
enum class PathSelectorKind : std::uint8_t {
  round_robin,
  queue_length,
  service_time,
  historical_service_time,
};

[[nodiscard]] const char* to_string(PathSelectorKind kind);  // "round-robin"
// multipath.conf's spellings: "round-robin", also with the " 0" for "no arguments" behind it.
[[nodiscard]] std::optional<PathSelectorKind> path_selector_named(std::string_view name);

class PathSelector {
 public:
  virtual ~PathSelector() = default;

  // index: below kMaxPaths, not added before.
  virtual void add_path(std::uint32_t index) = 0;
  // Added before, with nothing under way; the number may be added again.
  virtual void remove_path(std::uint32_t index) = 0;
  // The path's share, 1 when never told: so many times rr_min_io requests in a row (round-robin),
  // its throughput relative to the others' (service-time; 0: only where the others have 0 too).
  virtual void set_weight(std::uint32_t /*index*/, std::uint32_t /*weight*/) {}
  // What is under way on the path already, of a selector that takes over from another.
  virtual void set_load(std::uint32_t /*index*/, std::uint32_t /*requests*/,
                        std::uint64_t /*bytes*/) {}
  // eligible: at least one of the paths added; other bits are ignored. length_bytes: of the
  // request.
  [[nodiscard]] virtual std::uint32_t select(PathMask eligible, std::uint32_t length_bytes,
                                             TimePoint now) = 0;
  // A request was given to the path, by this selector's choice or not; and it has come back, with
  // whatever result.
  virtual void on_started(std::uint32_t /*index*/, std::uint32_t /*length_bytes*/) {}
  virtual void on_ended(std::uint32_t /*index*/, std::uint32_t /*length_bytes*/,
                        TimePoint /*started*/, TimePoint /*now*/) {}
};

// rr_min_io: of round-robin; 0 counts as 1.
[[nodiscard]] std::unique_ptr<PathSelector> make_path_selector(PathSelectorKind kind,
                                                               std::uint32_t rr_min_io);

// The best of the eligible entries by better(one, other), the first one after `last` among equals:
// so that equal paths take turns. Entry has `index`. Returns a place in entries.
template <typename Entry, typename Better>
[[nodiscard]] std::size_t best_in_turn(const std::vector<Entry>& entries, PathMask eligible,
                                       std::size_t last, Better better) {
  std::size_t best = entries.size();
  std::size_t at = last;
  for (std::size_t step = 0; step < entries.size(); ++step) {
    at = at + 1 < entries.size() ? at + 1 : 0;
    if ((eligible & path_bit(entries[at].index)) != 0 &&
        (best == entries.size() || better(entries[at], entries[best]))) {
      best = at;
    }
  }
  ISCSI_BLKBACK_ASSERT(best != entries.size() && "no path of the group is eligible");
  return best;
}

// Takes the entry of a path out, and brings place up to date, which says where each path's entry
// is.
template <typename Entry, std::size_t Count>
void remove_entry(std::vector<Entry>& entries, std::array<std::uint8_t, Count>& place,
                  std::uint32_t index) {
  entries.erase(entries.begin() + place[index]);
  for (std::size_t at = place[index]; at < entries.size(); ++at) {
    place[entries[at].index] = static_cast<std::uint8_t>(at);
  }
}

}  // namespace iscsi_blkback
