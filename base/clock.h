// Time as the product sees it: monotonic, in nanoseconds, always taken from a Reactor, so that
// tests run in virtual time. No code calls a system clock directly. Values.
#pragma once

#include <chrono>

namespace iscsi_blkback {

struct MonotonicClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicClock::duration;
using TimePoint = MonotonicClock::time_point;

}  // namespace iscsi_blkback
