// GatherPolicy: whether a session lets answers gather for a moment before it receives them. A
// target that answers commands one by one wakes the initiator for each, and is then given the next
// commands one by one; waiting a moment makes batches of both. A target that answers in batches
// gains nothing from it, neither does one that is slower than the moment is long, nor a shallow
// queue, where the wait would be added to every answer. So it looks: how many answers a receive
// brings without gathering, and how many with it. Pure; one session's.
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
  // The moment: a fifth of the time that a command takes, within these.
  static constexpr Duration kShortest = std::chrono::microseconds(20);
  static constexpr Duration kLongest = std::chrono::microseconds(60);

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
    // Little's law: how long a command takes.
    const Duration latency = (now - began_) / std::max(answers_, 1U) * in_flight;
    moment_ = std::clamp(latency / 5, kShortest, kLongest);
    switch (mode_) {
      case Mode::watching:
      case Mode::probing:
        mode_ = answers_ < length() * std::max(kFewAnswers, in_flight / 16) &&
                        bytes_ < answers_ * kLargeAnswerBytes
                    ? Mode::gathering
                    : Mode::watching;
        break;
      case Mode::gathering:
        mode_ = answers_ * 2 >= length() * kWorthwhileHalves ? Mode::probing : Mode::resting;
        break;
      case Mode::resting:
        mode_ = Mode::watching;
        break;
    }
    receives_ = 0;
  }

  // How long the next receive is to wait, with so many commands at the target; zero: not at all.
  [[nodiscard]] Duration moment(std::uint32_t in_flight) const {
    return mode_ == Mode::gathering && in_flight >= kDeepQueue ? moment_ : Duration::zero();
  }

 private:
  enum class Mode : std::uint8_t {
    watching,  // not gathering: what does a receive bring?
    gathering,
    probing,  // as watching, for a moment in between
    resting,  // gathering brought nothing; the target may change
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
      case Mode::gathering:
        return 120;
      case Mode::probing:
        return 8;
      case Mode::resting:
        return 1000;
    }
    return 1;
  }

  Mode mode_ = Mode::watching;
  std::uint32_t receives_ = 0;
  std::uint32_t answers_ = 0;
  std::size_t bytes_ = 0;
  TimePoint began_{};
  Duration moment_ = kShortest;
};

}  // namespace iscsi_blkback
