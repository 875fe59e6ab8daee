// CompletionModerator: whether a session lets answers gather in its socket before it receives them, and
// how many. A target that answers commands one by one wakes the initiator for each, and is then
// given the next commands one by one; waiting for several makes batches of both. A target that
// answers in batches gains nothing from it, neither does a shallow queue. So it looks: how many
// answers a receive brings without gathering, and how many with it, and that it does not cost
// throughput. The wait is for bytes, not for a time: a sleep that a timer ends costs more than
// many an answer does, in a virtual machine above all. Pure; one session's.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

class CompletionModerator {
 public:
  // With fewer commands than this at the target nothing is gathered.
  static constexpr std::uint32_t kDeepQueue = 8;
  // No receive waits longer than this for more than there is.
  static constexpr Duration kPatience = std::chrono::milliseconds(2);

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
    bytes_per_answer_ = bytes_ / std::max(answers_, 1U);
    switch (mode_) {
      case Mode::watching:
      case Mode::probing:
        per_answer_ungathered_ = per_answer;
        if (answers_ < length() * std::max(kFewAnswers, in_flight / 16) &&
            bytes_ < answers_ * kLargeAnswerBytes) {
          enter(mode_ == Mode::probing ? Mode::gathering : Mode::trying);
        } else {
          enter(Mode::watching);
        }
        break;
      case Mode::trying:
      case Mode::gathering:
        if (answers_ * 2 < length() * kWorthwhileHalves ||
            per_answer > per_answer_ungathered_ * 5 / 4) {
          rest();
        } else {
          rest_ = kShortestRest;
          enter(mode_ == Mode::trying ? Mode::gathering : Mode::probing);
        }
        break;
      case Mode::resting:
        enter(Mode::watching);
        break;
    }
  }

  // The next receive is to wait for so many bytes, with so many commands at the target; 1: for
  // whatever comes.
  [[nodiscard]] std::size_t low_water_bytes(std::uint32_t in_flight) const {
    if ((mode_ != Mode::gathering && mode_ != Mode::trying) || in_flight < kDeepQueue) {
      return 1;
    }
    // In steps, since telling the socket costs a system call.
    return std::max<std::size_t>(std::bit_floor(in_flight) * kShare / 16 * bytes_per_answer_, 1);
  }

  // A receive has waited for kPatience: the target holds most of the commands back for longer.
  void waited_in_vain() { rest(); }

 private:
  enum class Mode : std::uint8_t {
    watching,  // not gathering: what does a receive bring?
    trying,    // as gathering, for a moment
    gathering,
    probing,  // as watching, for a moment in between
    resting,  // gathering brought nothing, or cost too much; the target may change
  };
  // Gather only if receives bring fewer answers on average than this, or than a sixteenth of the
  // commands at the target, ...
  static constexpr std::uint32_t kFewAnswers = 4;
  // ... and the answers are smaller than this: beside the cost of a larger one, a wake-up's does not
  // matter.
  static constexpr std::size_t kLargeAnswerBytes = 16 * 1024;
  // Stop when gathering brings fewer than 1.5 answers per receive (counted in halves, to stay with
  // integers).
  static constexpr std::uint32_t kWorthwhileHalves = 3;
  // Sixteenths of the commands at the target whose answers a receive waits for. What is left has
  // to keep the target busy until the next ones reach it.
  static constexpr std::uint32_t kShare = 10;

  static constexpr std::uint32_t kShortestRest = 1000;
  static constexpr std::uint32_t kLongestRest = 64000;

  void enter(Mode mode) {
    mode_ = mode;
    receives_ = 0;
  }
  void rest() {
    rest_ = std::min(rest_ * 2, kLongestRest);
    enter(Mode::resting);
  }
  // Receives that a mode lasts.
  [[nodiscard]] std::uint32_t length() const {
    switch (mode_) {
      case Mode::watching:
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

  Mode mode_ = Mode::watching;
  std::uint32_t rest_ = kShortestRest;
  Duration per_answer_ungathered_{};
  std::uint32_t receives_ = 0;
  std::uint32_t answers_ = 0;
  std::size_t bytes_ = 0;
  std::size_t bytes_per_answer_ = 0;
  TimePoint began_{};
};

}  // namespace iscsi_blkback
