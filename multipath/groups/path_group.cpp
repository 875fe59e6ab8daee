#include "multipath/groups/path_group.h"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "base/result.h"
#include "base/words.h"

namespace iscsi_blkback {
namespace {

constexpr Word<PathGroupingPolicy> kPolicyWords[] = {
    {"failover", PathGroupingPolicy::failover},
    {"multibus", PathGroupingPolicy::multibus},
    {"group_by_prio", PathGroupingPolicy::group_by_prio},
    {"group_by_tpg", PathGroupingPolicy::group_by_tpg},
    {"group_by_serial", PathGroupingPolicy::group_by_serial},
};

template <typename Use>
void for_each_path(PathMask paths, Use use) {
  for (; paths != 0; paths &= paths - 1) {
    use(static_cast<std::uint32_t>(std::countr_zero(paths)));
  }
}

}  // namespace

const char* to_string(PathGroupingPolicy policy) {
  return word_for<kPolicyWords>(policy);
}

std::optional<PathGroupingPolicy> path_grouping_policy_named(std::string_view name) {
  return named<kPolicyWords>(name);
}

PathGroups::PathGroups(PathLoads loads, PathGroupingPolicy policy, PathSelectorKind selector,
                       std::uint32_t rr_min_io)
    : loads_(loads),
      policy_(policy),
      selector_kind_(selector),
      selector_(make_path_selector(selector, rr_min_io)) {
  weights_.fill(1);
}

void PathGroups::add_path(std::uint32_t index) {
  ISCSI_BLKBACK_ASSERT(index < kMaxPaths && (known_ & path_bit(index)) == 0);
  paths_ |= path_bit(index);
  known_ |= path_bit(index);
  selector_->add_path(index);
  regroup();
}

void PathGroups::retire_path(std::uint32_t index) {
  ISCSI_BLKBACK_ASSERT((paths_ & path_bit(index)) != 0);
  paths_ &= ~path_bit(index);
  up_ &= paths_;
  usable_ &= paths_;
  awaited_ &= paths_;
  regroup();
}

void PathGroups::remove_path(std::uint32_t index) {
  ISCSI_BLKBACK_ASSERT((known_ & ~paths_ & path_bit(index)) != 0 && loads_[index].requests == 0);
  known_ &= ~path_bit(index);
  selector_->remove_path(index);
  traits_[index] = {};
  weights_[index] = 1;
}

void PathGroups::set_policy(PathGroupingPolicy policy) {
  policy_ = policy;
  regroup();
}

void PathGroups::set_selector(PathSelectorKind selector, std::uint32_t rr_min_io, TimePoint now) {
  selector_kind_ = selector;
  selector_ = make_path_selector(selector, rr_min_io);
  timed_since_ = now;
  for_each_path(known_, [this](std::uint32_t path) {
    selector_->add_path(path);
    selector_->set_weight(path, weights_[path]);
  });
}

void PathGroups::set_weight(std::uint32_t index, std::uint32_t weight) {
  weights_[index] = weight;
  selector_->set_weight(index, weight);
}

void PathGroups::set_states(PathMask up, PathMask usable, PathMask awaited) {
  up_ = up;
  usable_ = usable | up;
  awaited_ = awaited;
  regroup();
}

bool PathGroups::same_group(std::uint32_t one, std::uint32_t other) const {
  const PathTraits& left = traits_[one];
  const PathTraits& right = traits_[other];
  if (left.marginal != right.marginal) {
    return false;
  }
  switch (policy_) {
    case PathGroupingPolicy::failover:
      return false;
    case PathGroupingPolicy::multibus:
      return true;
    case PathGroupingPolicy::group_by_prio:
      return left.priority == right.priority;
    case PathGroupingPolicy::group_by_tpg:
      return left.target_port_group == right.target_port_group;
    case PathGroupingPolicy::group_by_serial:
      return left.serial == right.serial;
  }
  return false;
}

void PathGroups::regroup() {
  const PathMask members_in_use = count_ == 0 ? 0 : groups_[current_].members;
  count_ = 0;
  for_each_path(paths_, [this](std::uint32_t path) {
    std::uint32_t group = 0;
    while (group < count_ && !same_group(path, static_cast<std::uint32_t>(
                                                   std::countr_zero(groups_[group].members)))) {
      ++group;
    }
    if (group == count_) {
      groups_[count_++] = PathGroup{.marginal = traits_[path].marginal};
    }
    groups_[group].members |= path_bit(path);
  });
  for (PathGroup& group : std::span(groups_).first(count_)) {
    int sum = 0;
    for_each_path(group.members & usable_,
                  [&](std::uint32_t path) { sum += std::max(traits_[path].priority, 0); });
    const int usable = std::popcount(group.members & usable_);
    group.priority = usable == 0 ? 0 : sum / usable;
  }
  const auto rank = [this](const PathGroup& group) {
    return std::tuple(group.marginal, -group.priority, -std::popcount(group.members & up_),
                      std::countr_zero(group.members));
  };
  std::sort(groups_.begin(), groups_.begin() + count_,
            [&](const PathGroup& one, const PathGroup& other) { return rank(one) < rank(other); });

  int most = -1;
  for (std::uint32_t group = 0; group < count_; ++group) {
    const PathMask members = groups_[group].members;
    for_each_path(members, [this, group](std::uint32_t path) {
      group_of_[path] = static_cast<std::uint8_t>(group);
    });
    const int kept = std::popcount(members & members_in_use & (up_ | awaited_));
    if (kept > most) {
      most = kept;
      current_ = group;
    }
  }
  if (most <= 0) {
    current_ = best();
  }
}

std::uint32_t PathGroups::best() const {
  for (std::uint32_t group = 0; group < count_; ++group) {
    if ((groups_[group].members & up_) != 0) {
      return group;
    }
  }
  return current_;
}

PathMask PathGroups::best_with(PathMask up) const {
  for (const PathGroup& group : groups()) {
    if ((group.members & up) != 0) {
      return group.members;
    }
  }
  return groups_[current_].members;
}

std::uint32_t PathGroups::select_elsewhere(PathMask eligible, std::uint32_t length_bytes,
                                           TimePoint now) {
  PathMask candidates = groups_[current_].members & eligible;
  for (std::uint32_t group = 0; candidates == 0 && group < count_; ++group) {
    candidates = groups_[group].members & eligible;
  }
  return candidates == 0 ? kNoPath : selector_->select(candidates, loads_, length_bytes, now);
}

}  // namespace iscsi_blkback
