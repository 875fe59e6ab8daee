// PathGroup: paths of one disk that are used side by side; the groups of a disk are used one at a
// time. Which paths share a group is the path_grouping_policy. Reactor thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "multipath/path_selector.h"

namespace iscsi_blkback {

// The names are multipath.conf's. failover: each path is a group; multibus: one group of all.
enum class PathGroupingPolicy : std::uint8_t { failover, multibus };

[[nodiscard]] const char* to_string(PathGroupingPolicy policy);

class PathGroup {
 public:
  explicit PathGroup(std::unique_ptr<PathSelector> selector) : selector_(std::move(selector)) {}

  void add_path(std::uint32_t index) {
    members_ |= path_bit(index);
    selector_->add_path(index);
  }
  [[nodiscard]] PathMask members() const { return members_; }
  [[nodiscard]] std::uint32_t select(PathMask eligible, std::uint32_t length_bytes, TimePoint now) {
    return selector_->select(eligible & members_, length_bytes, now);
  }
  [[nodiscard]] PathSelector& selector() { return *selector_; }

 private:
  std::unique_ptr<PathSelector> selector_;
  PathMask members_ = 0;
};

// All groups of a disk and which of them is in use. As in dm-mpath, the group in use stays so as
// long as one of its paths is up, even when an earlier one has come back (failback manual).
class PathGroups {
 public:
  PathGroups(PathGroupingPolicy policy, PathSelectorKind selector, std::uint32_t rr_min_io)
      : policy_(policy), selector_(selector), rr_min_io_(rr_min_io) {}

  void add_path(std::uint32_t index);

  // Whether the times below matter; when not, any will do (asking the clock is not free).
  [[nodiscard]] bool timed() const {
    return selector_ == PathSelectorKind::historical_service_time;
  }

  // The path for the next request. up: the paths that work. eligible: those of them that may take
  // this request (room in their queue, not where it has just failed); at least one. A group is left
  // when none of its paths is up; a request that must not go to the group in use borrows another.
  [[nodiscard]] std::uint32_t select(PathMask up, PathMask eligible, std::uint32_t length_bytes,
                                     TimePoint now);
  // The request was given to the path, and has come back.
  void on_started(std::uint32_t path, std::uint32_t length_bytes) {
    groups_[group_of_[path]].selector().on_started(path, length_bytes);
  }
  void on_ended(std::uint32_t path, std::uint32_t length_bytes, TimePoint started, TimePoint now) {
    groups_[group_of_[path]].selector().on_ended(path, length_bytes, started, now);
  }

  [[nodiscard]] std::uint32_t current() const { return current_; }
  [[nodiscard]] std::uint32_t group_of(std::uint32_t path) const { return group_of_[path]; }

 private:
  const PathGroupingPolicy policy_;
  const PathSelectorKind selector_;
  const std::uint32_t rr_min_io_;
  std::vector<PathGroup> groups_;
  std::array<std::uint8_t, kMaxPaths> group_of_{};
  std::uint32_t current_ = 0;
};

}  // namespace iscsi_blkback
