// PollGovernor: whether a reactor looks for what comes next before it sleeps. A sleep costs two wake-ups, the thread's
// and often its processor's; a look costs the processor as long as it takes. So the reactor looks as long as looks
// find something, for most of them; when they do not, it sleeps, and tries again ever less often.
// Decides by what it is told: it has no clock. Owned by UringReactor; the reactor's thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

struct PollLimits {
  Duration longest{};  // of one look, at most a millisecond; zero: the reactor sleeps at once
  std::uint32_t cpu_percent = 100;  // of the time that passes, for all looks together, 1 to 100
};

class PollGovernor {
 public:
  // What comes next: a target's answer, or a guest's request while no answer is awaited.
  enum class Awaited : std::uint8_t { answer, request };

  explicit PollGovernor(const PollLimits& limits) : limits_(limits) {}

  // A wait begins: how long the reactor looks at most; zero: not at all. answers: how many are awaited.
  [[nodiscard]] Duration begin(TimePoint now, std::uint32_t answers);
  // Of a look that begin() allowed.
  void end(TimePoint began, TimePoint now, bool found);
  // Whether it is to be found out now how often others have taken the processor from this thread: of so many looks
  // the last, as it may take a system call.
  [[nodiscard]] bool wants_preemptions() const { return looks_ % kLooksPerSample == 0; }
  // So often since this thread began.
  void note_preemptions(TimePoint now, std::uint64_t count);

  // More answers than these come in batches, which a look would tear apart; so would one right after them.
  static constexpr std::uint32_t kMostAnswers = 4;
  // The sleeps between two tries.
  static constexpr std::uint32_t kFewestSleeps = 16;
  static constexpr std::uint32_t kMostSleeps = 1024;
  // A processor that others want is left to them, ever longer as long as they do.
  static constexpr std::uint32_t kLooksPerSample = 8;
  static constexpr std::uint64_t kFewPreemptions = 1;  // of so many looks
  static constexpr Duration kShortestRest = std::chrono::milliseconds(5);
  static constexpr Duration kLongestRest = std::chrono::seconds(1);
  // What looks may take in one go of the share that they have not taken.
  static constexpr Duration kMostSaved = std::chrono::milliseconds(10);

 private:
  struct Luck {
    std::uint32_t score = kBestScore;
    std::uint32_t sleeps = 0;  // before the next try
    std::uint32_t next_sleeps = kFewestSleeps;
  };
  static constexpr std::uint32_t kBestScore = 8;
  static constexpr std::uint32_t kInVain = 2;  // of the score

  [[nodiscard]] Duration saved_at(TimePoint now) const;

  PollLimits limits_;
  std::array<Luck, 2> luck_;  // by Awaited
  Awaited awaited_ = Awaited::answer;
  std::uint32_t recent_answers_ = 0;  // the most of late, one less from wait to wait
  std::uint32_t looks_ = 0;
  std::uint64_t preemptions_ = 0;
  TimePoint rests_until_{};
  Duration next_rest_ = kShortestRest;
  TimePoint saved_since_{};
  Duration saved_ = kMostSaved;  // at saved_since_
};

}  // namespace iscsi_blkback
