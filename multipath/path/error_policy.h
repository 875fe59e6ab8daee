// Error policy: the one table that says what becomes of a request whose command did not succeed.
// classify() (initiator/scsi/error_class.h) reads the target's answer, rule_for() is the table.
// Pure functions.
//
// Two kinds of budget. What says something of the command (a medium error, a sense key nobody
// knows) is tried again so many times. What says "not now" (busy, aborted, becoming ready) is
// waited for so long, however often the target is asked meanwhile: a target that answers fast is
// not given up sooner.
//
// The actions are those of Linux (scsi_error.c, scsi_dh_alua.c, blk_path_error) except where noted
// at the row.
#pragma once

#include <cstdint>
#include <optional>

#include "base/block_device.h"
#include "base/clock.h"
#include "initiator/scsi/error_class.h"

namespace iscsi_blkback {

enum class PathVerdict : std::uint8_t {
  keep,
  fail,    // down until the checker or a new login finds it good
  verify,  // no guest I/O until its identity has been read again
};

enum class RetryDelay : std::uint8_t {
  none,
  brief,      // 10 ms, doubling up to 1 s, with jitter
  attention,  // none for the first few, then brief: a storm of unit attentions
  pause,      // 0.5 to 1 s; none for the first time when another path is there
};

struct ErrorRule {
  PathVerdict path = PathVerdict::keep;
  // So often on the same path, then so often preferably on another; when both are used up, answer.
  // An answer of no_path is none yet: the path fails, and the request waits for one that works.
  std::uint16_t retries_here = 0;
  std::uint16_t retries_elsewhere = 0;
  RetryDelay delay = RetryDelay::none;
  IoStatus answer = IoStatus::target_error;
  // Not zero: times instead of numbers, both from the first error of the class in a row, and
  // without what the request has waited for something of ours since; see RetryState::wait().
  Duration time_here{};
  Duration time_in_all{};
};

// For errors that say something of the path and nothing of the request: it waits for a path.
inline constexpr std::uint16_t kUnlimitedRetries = 0xffff;

[[nodiscard]] ErrorRule rule_for(ErrorClass error);
// How well the path serves the LUN is to be asked again.
[[nodiscard]] bool concerns_access(ErrorClass error);
// It may be the path that garbles, delays or loses commands, though it is up.
[[nodiscard]] bool concerns_path(ErrorClass error);

// Where a request stands with its retries.
class RetryState {
 public:
  enum class Step : std::uint8_t { answer, here, elsewhere };

  // Counts the error and says what to do next. Another class than the last one starts a new count
  // and a new time, so that a request that had to wait for a busy target is not out of retries for
  // what follows; kMaxRetries bounds the whole.
  [[nodiscard]] Step next(ErrorClass error, const ErrorRule& rule, TimePoint now);
  // From now on the request waits for something of ours: a path, room on one, a fence, space, or
  // its guest. That is no time in which the target says "not now", and says nothing of the next
  // error.
  // Of several calls in a row the first counts.
  void wait(TimePoint now) {
    if (count_ != 0) [[unlikely]] {
      waits_since_ = waits_since_.value_or(now);
    }
  }
  // It is sent to the target.
  void go_on(TimePoint now) {
    if (waits_since_) [[unlikely]] {
      first_at_ += now - *waits_since_;
      waits_since_.reset();
    }
  }
  // The error counted last was the first of its class in a row.
  [[nodiscard]] bool first() const { return count_ == 1; }
  // How long to wait before the next try. random: for the jitter.
  [[nodiscard]] Duration delay(RetryDelay kind, std::uint64_t random) const;

  static constexpr std::uint16_t kMaxRetries = 1000;

 private:
  ErrorClass last_ = ErrorClass::success;
  std::uint16_t count_ = 0;  // of the last class in a row
  TimePoint first_at_{};     // of these, the first
  std::optional<TimePoint> waits_since_;
  std::uint16_t bounded_total_ = 0;
};

}  // namespace iscsi_blkback
