// QueueDepth: how many commands one LUN takes over one session, learned from its answers. TASK SET
// FULL halves it, BUSY takes an eighth, success gives an eighth back each second, up to no limit of
// its own again. One for each path. Reactor thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

class QueueDepth {
 public:
  static constexpr std::uint32_t kNoLimit = ~std::uint32_t{0};

  // most: where a limit has no meaning any more (what the session sends at once at most).
  explicit QueueDepth(std::uint32_t most) : most_(most) {}

  [[nodiscard]] bool limited() const { return limit_ != kNoLimit; }
  [[nodiscard]] std::uint32_t limit() const { return limit_; }

  void reset() { limit_ = kNoLimit; }

  // outstanding: at the LUN when it refused the command, that one not counted.
  void on_task_set_full(TimePoint now, std::uint32_t outstanding) {
    shrink(now, outstanding, (std::min(limit_, outstanding + 1)) / 2);
  }
  void on_busy(TimePoint now, std::uint32_t outstanding) {
    const std::uint32_t now_at = std::min(limit_, outstanding + 1);
    shrink(now, outstanding, now_at - (now_at + 7) / 8);
  }
  // Only when limited(): the caller's check is the whole cost of the common case.
  void on_success(TimePoint now) {
    if (now - changed_ < kRaiseInterval) {
      return;
    }
    changed_ = now;
    limit_ += std::max(limit_ / 8, 1U);
    if (limit_ > most_) {
      limit_ = kNoLimit;
    }
  }

 private:
  static constexpr Duration kRaiseInterval = std::chrono::seconds(1);
  // Refusals of commands that were sent together count once.
  static constexpr Duration kSameBurst = std::chrono::milliseconds(100);

  void shrink(TimePoint now, std::uint32_t outstanding, std::uint32_t to) {
    if (outstanding == 0) {
      return;  // a LUN that refuses its only command is not served by a shorter queue
    }
    if (!limited() || now - changed_ >= kSameBurst) {
      limit_ = std::max(to, 1U);
      changed_ = now;
    }
  }

  std::uint32_t most_;
  std::uint32_t limit_ = kNoLimit;
  TimePoint changed_{};
};

}  // namespace iscsi_blkback
