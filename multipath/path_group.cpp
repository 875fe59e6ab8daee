#include "multipath/path_group.h"

#include "base/result.h"

namespace iscsi_blkback {

const char* to_string(PathGroupingPolicy policy) {
  switch (policy) {
    case PathGroupingPolicy::failover:
      return "failover";
    case PathGroupingPolicy::multibus:
      return "multibus";
  }
  return "unknown";
}

void PathGroups::add_path(std::uint32_t index) {
  if (groups_.empty() || policy_ == PathGroupingPolicy::failover) {
    groups_.emplace_back(make_path_selector(selector_, rr_min_io_));
  }
  groups_.back().add_path(index);
  group_of_[index] = static_cast<std::uint8_t>(groups_.size() - 1);
}

std::uint32_t PathGroups::select(PathMask up, PathMask eligible, std::uint32_t length_bytes,
                                 TimePoint now) {
  if ((groups_[current_].members() & up) == 0) {
    for (std::uint32_t group = 0; group < groups_.size(); ++group) {
      if ((groups_[group].members() & up) != 0) {
        current_ = group;
        break;
      }
    }
  }
  if ((groups_[current_].members() & eligible) != 0) {
    return groups_[current_].select(eligible, length_bytes, now);
  }
  for (PathGroup& group : groups_) {
    if ((group.members() & eligible) != 0) {
      return group.select(eligible, length_bytes, now);
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "no path is eligible");
  return 0;
}

}  // namespace iscsi_blkback
