// LogoutSequence: the end of a session's connection in order. From begin() on no new command is
// taken; commands have until the end of the drain to end by themselves, then the Logout goes in any
// case, and what is still at the target ends with the session; at the limit the connection is
// dropped. Its Session, which owns it, sends. Reactor thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/reactor.h"

namespace iscsi_blkback {

class LogoutSequence {
 public:
  using Due = void (*)(void* owner) noexcept;
  // call: the connection is over(), or else end_drain().
  LogoutSequence(Reactor& reactor, Due call, void* owner) : timer_(reactor, call, owner) {}

  struct Limits {
    Duration drain{};
    Duration limit{};
  };
  // Of a stop of ours.
  [[nodiscard]] static Limits of_stop(Duration logout_timeout) {
    return {.drain = logout_timeout * 4 / 5, .limit = logout_timeout};
  }
  // The target has asked for it, and closes the connection itself after that many seconds; it can
  // keep us draining for kMaxDrain at most.
  [[nodiscard]] static Limits asked_for(std::uint16_t seconds) {
    const Duration limit =
        std::clamp<Duration>(std::chrono::seconds{seconds}, std::chrono::seconds{1}, kMaxDrain);
    return {.drain = std::max(limit - Duration{std::chrono::seconds{1}}, limit / 2),
            .limit = limit};
  }

  void begin(TimePoint now, const Limits& limits) {
    queued_ = true;
    drain_end_ = now + limits.drain;
    limit_ = now + limits.limit;
    timer_.start_at(next_event());
  }
  // One that has begun ends within these, too.
  void hasten(TimePoint now, const Limits& limits) {
    drain_end_ = std::min(drain_end_, now + limits.drain);
    limit_ = std::min(limit_, now + limits.limit);
    timer_.start_at(next_event());
  }
  // The connection is gone.
  void forget_connection() {
    queued_ = sent_ = drained_ = false;
    timer_.stop();
  }

  // The Logout may be sent.
  [[nodiscard]] bool due(bool commands_outstanding) const {
    return queued_ && (!commands_outstanding || drained_);
  }
  // It is sent now; its answer has logout_timeout, within the limit.
  void send(TimePoint now, Duration logout_timeout) {
    queued_ = false;
    sent_ = true;
    limit_ = std::min(limit_, now + logout_timeout);
    timer_.start_at(next_event());
  }
  [[nodiscard]] bool sent() const { return sent_; }
  [[nodiscard]] bool under_way() const { return queued_ || sent_; }

  [[nodiscard]] bool over(TimePoint now) const { return now >= limit_; }
  // The Logout goes now although commands are outstanding.
  void end_drain() {
    drained_ = true;
    timer_.start_at(next_event());
  }

 private:
  [[nodiscard]] TimePoint next_event() const { return sent_ || drained_ ? limit_ : drain_end_; }

  static constexpr std::chrono::seconds kMaxDrain{60};  // ours

  bool queued_ = false;
  bool sent_ = false;
  bool drained_ = false;
  TimePoint drain_end_{};
  TimePoint limit_{};
  Timer timer_;
};

}  // namespace iscsi_blkback
