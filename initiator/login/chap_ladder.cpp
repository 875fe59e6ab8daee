#include "initiator/login/chap_ladder.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

bool contains(const std::vector<ChapAlgorithm>& list, ChapAlgorithm algorithm) {
  return std::find(list.begin(), list.end(), algorithm) != list.end();
}

ChapAlgorithm weakest(const std::vector<ChapAlgorithm>& list) {
  return *std::min_element(list.begin(), list.end());  // their numbers grow with their strength
}

}  // namespace

std::vector<ChapAlgorithm> ChapLadder::rest() const {
  std::vector<ChapAlgorithm> rest;
  for (const ChapAlgorithm algorithm : allowed_) {
    if (!contains(rung_.left_out, algorithm)) {
      rest.push_back(algorithm);
    }
  }
  return rest;
}

void ChapLadder::begin_at(const ChapRung& rung) {
  if (climbing_) {
    return;
  }
  rung_ = rung;
  const std::vector<ChapAlgorithm> offered = offer();
  // Another session's settings may have allowed more, or less.
  remembered_ = !offered.empty() && offered != allowed_;
  if (!remembered_) {
    rung_ = {};
  }
}

std::vector<ChapAlgorithm> ChapLadder::offer() const {
  std::vector<ChapAlgorithm> offered = rest();
  if (rung_.alone && !offered.empty()) {
    offered = {weakest(offered)};
  }
  return offered;
}

ChapNext ChapLadder::failed(ChapFailure failure, std::optional<ChapAlgorithm> chosen) {
  climbing_ = true;
  const bool lost_again = lost_ && lost_at_ == chosen;
  lost_ = failure == ChapFailure::lost && !lost_again;
  lost_at_ = chosen;
  if (lost_) {
    return ChapNext::same;
  }
  if (std::exchange(remembered_, false)) {
    rung_ = {};
    return ChapNext::next;
  }
  const std::vector<ChapAlgorithm> left = offer();
  if (left.size() > 1 && (chosen || contains(left, weakest(allowed_)))) {
    if (chosen) {
      rung_.left_out.push_back(*chosen);
    } else {
      rung_.alone = true;
    }
    rung_.by_loss = rung_.by_loss || failure == ChapFailure::lost;
    return ChapNext::next;
  }
  rung_ = {};
  all_failed_ = true;
  return ChapNext::first_again;
}

std::optional<ChapRung> ChapLadder::succeeded() {
  const bool worth_it = !all_failed_;
  climbing_ = all_failed_ = lost_ = false;
  remembered_ = offer() != allowed_;
  return worth_it ? std::optional(rung_) : std::nullopt;
}

std::optional<ChapRung> ChapMemory::recall(const std::string& target, TimePoint now) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.target == target; });
  if (found == entries_.end()) {
    return std::nullopt;
  }
  if (found->rung.by_loss && now - found->since >= kLossCounts) {
    entries_.erase(found);
    return std::nullopt;
  }
  entries_.splice(entries_.begin(), entries_, found);
  return found->rung;
}

void ChapMemory::remember(const std::string& target, const std::optional<ChapRung>& rung,
                          TimePoint now) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.target == target; });
  if (!rung || *rung == ChapRung{}) {
    if (found != entries_.end()) {
      entries_.erase(found);
    }
    return;
  }
  if (found != entries_.end()) {
    if (found->rung != *rung) {
      *found = {target, *rung, now};
    }
    entries_.splice(entries_.begin(), entries_, found);
    return;
  }
  entries_.push_front({target, *rung, now});
  if (entries_.size() > kMaxTargets) {
    entries_.pop_back();
  }
}

ChapMemory& process_chap_memory() {
  static ChapMemory memory;
  return memory;
}

}  // namespace iscsi_blkback
