// RoundRobinSelector: stays with a path for rr_min_io requests times the path's weight, then takes
// the next one that is eligible (dm-mpath's round-robin as it was when it still honoured
// rr_min_io). Reactor thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "multipath/groups/path_selector.h"

namespace iscsi_blkback {

class RoundRobinSelector final : public PathSelector {
 public:
  explicit RoundRobinSelector(std::uint32_t rr_min_io);  // 0 counts as 1

  void add_path(std::uint32_t index) override;
  void remove_path(std::uint32_t index) override;
  void set_weight(std::uint32_t index, std::uint32_t weight) override;
  [[nodiscard]] std::uint32_t select(PathMask eligible, PathLoads loads, std::uint32_t length_bytes,
                                     TimePoint now) override;

 private:
  const std::uint32_t rr_min_io_;
  std::vector<std::uint32_t> paths_;
  std::array<std::uint32_t, kMaxPaths> weights_;
  bool started_ = false;
  std::size_t current_ = 0;  // place in paths_, once started
  std::uint32_t left_ = 0;   // requests that the current path still takes in a row
};

}  // namespace iscsi_blkback
