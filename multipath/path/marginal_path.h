// MarginalPath: whether a path has failed so often lately that it is a last resort, used when no
// other path is up. Each failure meanwhile, or soon after, doubles the time. The options have the
// names of multipath.conf; what is counted are the path's own failures, no test I/O: that it went
// down without having said so, that it was silent (see StallDetector) while others were not, and so
// many errors of single commands. Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace iscsi_blkback {

struct MarginalPathOptions {
  std::chrono::milliseconds double_failed_time{60000};    // 0: no path is ever marginal
  std::chrono::milliseconds err_recheck_gap_time{60000};  // the first hold-down
};

class MarginalPath {
 public:
  static constexpr std::uint32_t kMaxDoublings = 5;
  // In double_failed_time: as bad as one failure.
  static constexpr std::uint32_t kErrorsOfAFailure = 4;

  // A command has failed at the path, which is still up.
  void on_error(TimePoint now, const MarginalPathOptions& options) {
    if (errors_ == 0 || now - first_error_ > options.double_failed_time) {
      errors_ = 0;
      first_error_ = now;
    }
    if (++errors_ == kErrorsOfAFailure) {
      errors_ = 0;
      on_failed(now, options);
    }
  }
  // The path was up and is not any more, because of an error.
  void on_failed(TimePoint now, const MarginalPathOptions& options) {
    const auto last = std::exchange(last_failure_, now);
    if (options.double_failed_time.count() == 0) {
      return;
    }
    if (until_ && now < *until_ + hold(options)) {
      doublings_ = std::min(doublings_ + 1, kMaxDoublings);
    } else if (last && now - *last <= options.double_failed_time) {
      doublings_ = 0;
    } else {
      return;
    }
    until_ = now + hold(options);
  }
  [[nodiscard]] bool marginal(TimePoint now) const { return until_ && now < *until_; }
  [[nodiscard]] std::optional<TimePoint> until() const { return until_; }

 private:
  [[nodiscard]] Duration hold(const MarginalPathOptions& options) const {
    return Duration(options.err_recheck_gap_time) * (1 << doublings_);
  }

  std::optional<TimePoint> last_failure_;
  std::optional<TimePoint> until_;
  std::uint32_t doublings_ = 0;
  std::uint32_t errors_ = 0;  // since first_error_
  TimePoint first_error_{};
};

}  // namespace iscsi_blkback
