// PathSelector: which of a group's paths takes the next request. Paths are numbered; who may take
// one at all (up, and with room in its queue) is a mask that the caller keeps. The choices are
// those of dm-mpath's path selectors of the same names. Nothing allocates but add_path(). Reactor
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "multipath/path/path_load.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

// The names are multipath.conf's.
enum class PathSelectorKind : std::uint8_t {
  round_robin,
  queue_length,
  service_time,
  historical_service_time,
};

// Behind the option's name, of a name that is no selector's.
inline constexpr const char* kNoPathSelector =
    "is none of round-robin, queue-length, service-time and historical-service-time";
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
  // eligible: at least one of the paths added; other bits are ignored. loads: what is under way on
  // each path, chosen here or not. length_bytes: of the request.
  [[nodiscard]] virtual std::uint32_t select(PathMask eligible, PathLoads loads,
                                             std::uint32_t length_bytes, TimePoint now) = 0;
  // A request has come back from the path, for selectors that learn from how long that took; see
  // PathGroups::timed().
  virtual void on_ended(std::uint32_t /*index*/, TimePoint /*started*/, TimePoint /*now*/) {}
};

// rr_min_io: of round-robin; 0 counts as 1.
[[nodiscard]] std::unique_ptr<PathSelector> make_path_selector(PathSelectorKind kind,
                                                               std::uint32_t rr_min_io);

}  // namespace iscsi_blkback
