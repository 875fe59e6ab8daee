#include "base/poll_governor.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

Duration PollGovernor::saved_at(TimePoint now) const {
  const Duration passed = std::min<Duration>(now - saved_since_, kMostSaved * 100);
  return std::min(kMostSaved, saved_ + passed * limits_.cpu_percent / 100);
}

Duration PollGovernor::begin(TimePoint now, std::uint32_t answers) {
  awaited_ = answers == 0 ? Awaited::request : Awaited::answer;
  recent_answers_ = std::max(answers, recent_answers_ - std::min(recent_answers_, 1U));
  if (limits_.longest == Duration::zero() || recent_answers_ > kMostAnswers || now < rests_until_ ||
      saved_at(now) < limits_.longest) {
    return Duration::zero();
  }
  Luck& luck = luck_[static_cast<std::size_t>(awaited_)];
  if (luck.sleeps != 0) {
    --luck.sleeps;
    return Duration::zero();
  }
  return limits_.longest;
}

void PollGovernor::end(TimePoint began, TimePoint now, bool found) {
  ++looks_;
  // A thread that stood still in the middle of a look owes nothing: it would never look again.
  saved_ = std::max(saved_at(now) - (now - began), Duration::zero());
  saved_since_ = now;
  Luck& luck = luck_[static_cast<std::size_t>(awaited_)];
  if (found) {
    luck.score = std::min(luck.score + 1, kBestScore);
    if (luck.score == kBestScore) {
      luck.next_sleeps = kFewestSleeps;
    }
    return;
  }
  if (now - began < limits_.longest) {
    return;  // something else has ended it
  }
  if (luck.score > kInVain) {
    luck.score -= kInVain;
    return;
  }
  luck.score = 1;  // so that the next try alone decides
  luck.sleeps = luck.next_sleeps;
  luck.next_sleeps = std::min(luck.next_sleeps * 2, kMostSleeps);
}

void PollGovernor::note_preemptions(TimePoint now, std::uint64_t count) {
  const bool wanted = count - std::exchange(preemptions_, count) > kFewPreemptions;
  if (!wanted) {
    next_rest_ = kShortestRest;
    return;
  }
  rests_until_ = now + next_rest_;
  next_rest_ = std::min(next_rest_ * 2, kLongestRest);
}

}  // namespace iscsi_blkback
