// PathGroups: the paths of one disk in groups. The paths of a group are used side by side, the
// groups one at a time, the best first. Which paths share a group is the path_grouping_policy, and
// it is worked out anew whenever a path, a priority or another trait comes, goes or changes.
// Reactor thread.
//
// Nothing but add_path() and set_selector() allocates: a group is a mask, and one selector serves
// all groups, so that a regrouping loses nothing of what the selector knows.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "multipath/groups/path_selector.h"

namespace iscsi_blkback {

// The names are multipath.conf's.
enum class PathGroupingPolicy : std::uint8_t {
  failover,         // each path is a group
  multibus,         // one group of all
  group_by_prio,    // by priority
  group_by_tpg,     // by ALUA target port group
  group_by_serial,  // by the serial number that the LUN gives there (VPD 0x80)
};

// Behind the option's name, of a name that is no policy's.
inline constexpr const char* kNoPathGroupingPolicy =
    "is none of failover, multibus, group_by_prio, group_by_tpg and group_by_serial";
[[nodiscard]] const char* to_string(PathGroupingPolicy policy);
[[nodiscard]] std::optional<PathGroupingPolicy> path_grouping_policy_named(std::string_view name);

// Of a path whose LUN has not told anything yet; no real one is less.
inline constexpr int kUndefinedPriority = -1;

// What groups and orders paths.
struct PathTraits {
  int priority = kUndefinedPriority;
  std::optional<std::uint16_t> target_port_group = {};
  std::string serial = {};
  bool marginal = false;  // in a group of last resort

  bool operator==(const PathTraits&) const = default;
};

struct PathGroup {
  PathMask members = 0;
  int priority = 0;  // mean of the paths that are up or ghost; 0: there is none
  bool marginal = false;
};

class PathGroups {
 public:
  // loads: what is under way on each path; outlive it.
  PathGroups(PathLoads loads, PathGroupingPolicy policy, PathSelectorKind selector,
             std::uint32_t rr_min_io);

  void add_path(std::uint32_t index);
  // The path leaves its group: it is not selected any more. What is under way there still ends.
  void retire_path(std::uint32_t index);
  // Retired, and nothing is under way there any more; the number may be added again.
  void remove_path(std::uint32_t index);
  // Takes effect with the next request; what is under way stays where it is.
  void set_policy(PathGroupingPolicy policy);
  void set_selector(PathSelectorKind selector, std::uint32_t rr_min_io, TimePoint now);
  void set_weight(std::uint32_t index, std::uint32_t weight);  // see PathSelector
  // Of one path or of several; then regroup(). What was in use stays in use: the group that has
  // most of its working paths.
  void set_traits(std::uint32_t index, const PathTraits& traits) { traits_[index] = traits; }
  void regroup();
  // Regroups too. up: work. usable: up, or would after an activation (ghost). awaited: an answer
  // that comes soon tells whether they are up again. A group without a path that is up or awaited
  // is left for the next best that has one that is up.
  void set_states(PathMask up, PathMask usable, PathMask awaited = 0);

  // Best first: those of last resort behind the others, then by priority, then by the number of
  // paths that are up.
  [[nodiscard]] std::span<const PathGroup> groups() const { return {groups_.data(), count_}; }
  [[nodiscard]] std::uint32_t current() const { return current_; }
  // Nothing in the current group is up, but soon something may be.
  [[nodiscard]] bool awaits_current() const {
    const PathMask members = groups_[current_].members;
    return (members & up_) == 0 && (members & awaited_) != 0;
  }
  [[nodiscard]] std::uint32_t group_of(std::uint32_t path) const { return group_of_[path]; }
  [[nodiscard]] const PathTraits& traits(std::uint32_t path) const { return traits_[path]; }
  // The best group that has a path that is up; current() when none has.
  [[nodiscard]] std::uint32_t best() const;
  // Fails back, or over, to a group: it stays current as long as one of its paths is up.
  void use(std::uint32_t group) { current_ = group; }

  // Whether the times below matter, and on_ended() is to be told; when not, any time will do (asking
  // the clock is not free).
  [[nodiscard]] bool timed() const {
    return selector_kind_ == PathSelectorKind::historical_service_time;
  }

  // A request that looks for a path, see choose_path().
  struct Wanted {
    std::uint32_t length_bytes = 0;
    std::optional<std::uint32_t> prefer = {};  // this path, if it takes the request
    PathMask avoid = 0;                        // rather none of these
  };
  // It must wait.
  static constexpr std::uint32_t kNoPath = ~std::uint32_t{0};

  // The path for the next request. up: the paths that work now. eligible: those of them that may
  // take the request. Only of the current group, or when nothing in it is up, of the next best in
  // which something is: a full queue is no reason to make an array change its controller.
  [[nodiscard]] std::uint32_t select(PathMask up, PathMask eligible, std::uint32_t length_bytes,
                                     TimePoint now) {
    PathMask members = groups_[current_].members;
    if ((members & up) == 0) [[unlikely]] {
      members = best_with(up);
    }
    const PathMask candidates = members & eligible;
    return candidates == 0 ? kNoPath : selector_->select(candidates, loads_, length_bytes, now);
  }
  // For a retry that one path has just refused: of any group, the current one preferred.
  [[nodiscard]] std::uint32_t select_elsewhere(PathMask eligible, std::uint32_t length_bytes,
                                               TimePoint now);

  // A request has come back from the path. Only when timed().
  void on_ended(std::uint32_t path, TimePoint started, TimePoint now) {
    selector_->on_ended(path, started > timed_since_ ? started : timed_since_, now);
  }

 private:
  // The members of the best group with one of these; of the current group where none has.
  [[nodiscard]] PathMask best_with(PathMask up) const;
  [[nodiscard]] bool same_group(std::uint32_t one, std::uint32_t other) const;

  PathLoads loads_;
  PathGroupingPolicy policy_;
  PathSelectorKind selector_kind_;
  std::unique_ptr<PathSelector> selector_;
  TimePoint timed_since_{};  // requests that started before were not timed
  PathMask paths_ = 0;       // that are in groups
  PathMask known_ = 0;       // these and the retired ones: those that the selector has
  std::array<PathTraits, kMaxPaths> traits_;
  std::array<std::uint32_t, kMaxPaths> weights_;
  PathMask up_ = 0;
  PathMask usable_ = 0;
  PathMask awaited_ = 0;
  std::array<PathGroup, kMaxPaths> groups_;
  std::uint32_t count_ = 0;
  std::array<std::uint8_t, kMaxPaths> group_of_{};
  std::uint32_t current_ = 0;
};

}  // namespace iscsi_blkback
