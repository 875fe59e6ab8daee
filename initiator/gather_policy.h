// GatherPolicy: whether a session lets answers gather for a moment before it receives them. A
// target that answers commands one by one wakes the initiator for each, and is then given the next
// commands one by one; waiting a moment makes batches of both. A target that answers in batches
// gains nothing from it, neither does one that is slower than the moment is long, nor a shallow
// queue, where the wait would be added to every answer. So it looks: how many answers a receive
// brings without gathering, and how many with it, and that it does not cost throughput. Pure; one
// session's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

class GatherPolicy {
 public:
  // With fewer commands than this at the target nothing is gathered.
  static constexpr std::uint32_t kDeepQueue = 8;
  // The moment: a quarter of the time that a command takes, within these.
  static constexpr Duration kShortest = std::chrono::microseconds(20);
  static constexpr Duration kLongest = std::chrono::microseconds(80);

  // A receive has brought so many bytes, and in them answers to some of the commands that were at
  // the target.
  void received(std::size_t bytes, std::uint32_t answers, std::uint32_t in_flight, TimePoint now) {
    if (in_flight < kDeepQueue) {
      return;
    }
    if (receives_ == 0) {
      began_ = now;  // its answers belong to the time before
      answers_ = 0;
      bytes_ = 0;
    } else {
      answers_ += answers;
      bytes_ += bytes;
    }
    if (++receives_ <= length()) {
      return;
    }
    const Duration per_answer = (now - began_) / std::max(answers_, 1U);
    moment_ = std::clamp(per_answer * in_flight / 4, kShortest, kLongest);  // Little's law
    switch (mode_) {
      case Mode::watching:
      case Mode::probing:
        per_answer_ungathered_ = per_answer;
        mode_ = answers_ < length() * std::max(kFewAnswers, in_flight / 16) &&
                        bytes_ < answers_ * kLargeAnswerBytes
                    ? (mode_ == Mode::probing ? Mode::gathering : Mode::trying)
                    : Mode::watching;
        break;
      case Mode::trying:
      case Mode::gathering:
        if (answers_ * 2 < length() * kWorthwhileHalves ||
            per_answer > per_answer_ungathered_ * 5 / 4) {
          mode_ = Mode::resting;
          rest_ = std::min(rest_ * 2, kLongestRest);
        } else {
          mode_ = mode_ == Mode::trying ? Mode::gathering : Mode::probing;
          rest_ = kShortestRest;
        }
        break;
      case Mode::resting:
        mode_ = Mode::watching;
        break;
    }
    receives_ = 0;
  }

  // How long the next receive is to wait, with so many commands at the target; zero: not at all.
  [[nodiscard]] Duration moment(std::uint32_t in_flight) const {
    return (mode_ == Mode::gathering || mode_ == Mode::trying) && in_flight >= kDeepQueue
               ? moment_
               : Duration::zero();
  }

 private:
  enum class Mode : std::uint8_t {
    watching,  // not gathering: what does a receive bring?
    trying,    // as gathering, for a moment
    gathering,
    probing,  // as watching, for a moment in between
    resting,  // gathering brought nothing, or cost too much; the target may change
  };
  // Without gathering, a receive that brings fewer answers on average is worth a wait: so few, or
  // less than a sixteenth of the queue, ...
  static constexpr std::uint32_t kFewAnswers = 4;
  // ... unless each costs so much that the wake-ups are nothing beside it.
  static constexpr std::size_t kLargeAnswerBytes = 16 * 1024;
  // With gathering, it has to bring as many half answers, or the wait was for nothing.
  static constexpr std::uint32_t kWorthwhileHalves = 3;

  // Receives that a mode lasts.
  [[nodiscard]] std::uint32_t length() const {
    switch (mode_) {
      case Mode::watching:
        return 16;
      case Mode::trying:
        return 16;
      case Mode::gathering:
        return 120;
      case Mode::probing:
        return 8;
      case Mode::resting:
        return rest_;
    }
    return 1;
  }

  static constexpr std::uint32_t kShortestRest = 1000;
  static constexpr std::uint32_t kLongestRest = 64000;

  Mode mode_ = Mode::watching;
  std::uint32_t rest_ = kShortestRest;
  Duration per_answer_ungathered_{};
  std::uint32_t receives_ = 0;
  std::uint32_t answers_ = 0;
  std::size_t bytes_ = 0;
  TimePoint began_{};
  Duration moment_ = kShortest;
};

}  // namespace iscsi_blkback
