// RepeatedEnds: whether the connections of a session end for the same reason again and again, so
// that trying at full speed helps nobody. Part of a Session; reactor thread.
//
// Two patterns:
//  - The target breaks the same protocol at every try: the third time in a row it is one.
//  - The target ends one session after the other shortly after its login, and takes the next login:
//    most likely because another host logs in with the same initiator name and ISID, which ends the
//    older session each time (RFC 7143 6.3.5).
// Then each try is made twice as long after the last one, and the session keeps ending, which a
// disk does not take for a path that is back; until a connection has lasted.
//
// A session of such a fight lasts as long as the other host waits before it logs in again: one of
// ours about as long as this one does, another initiator for DefaultTime2Wait. One that waits
// longer is named as well, but there is nothing to slow down then.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace iscsi_blkback {

class RepeatedEnds {
 public:
  enum class Cause : std::uint8_t {
    other,
    broken_rule,      // the target broke the protocol, or damaged data
    ended_by_target,  // it closed the connection, or said that it drops the session
  };

  static constexpr std::uint32_t kBrokenRules = 3;  // so many are a pattern
  static constexpr std::uint32_t kEndedSessions = 5;
  static constexpr std::chrono::seconds kShortly{3};  // after the login; later, what it waits, too
  static constexpr std::chrono::minutes kSoon{1};     // after the login, to be named
  static constexpr std::chrono::minutes kLasted{5};
  static constexpr std::chrono::seconds kFirstWait{1};
  static constexpr std::chrono::seconds kLongestWait{30};

  // Of a connection that was logged in for so long (0: the login failed). pause: what another host
  // may wait before it logs in again, as far as can be known.
  void on_end(Cause cause, Duration up_for, Duration pause = Duration::zero()) {
    if (lasts(up_for)) {
      count_ = 0;
    }
    const bool was_up = up_for != Duration::zero();
    switch (cause) {
      case Cause::broken_rule:
        ended_soon_ = 0;
        count(cause);
        return;
      case Cause::ended_by_target:
        if (cause_ == Cause::broken_rule && recognised()) {
          return;  // it may well give up what it cannot do right
        }
        ended_soon_ = up_for > kSoon ? 0 : ended_soon_ + 1;
        if (up_for > std::max<Duration>(kShortly + 2 * wait(), 2 * pause)) {
          cause_ = cause;
          count_ = 0;
        } else {
          count(cause);
        }
        return;
      case Cause::other:
        if (!was_up && cause_ == Cause::ended_by_target) {
          count_ = 0;  // the target is not there, or does not want us: that explains the rest
          ended_soon_ = 0;
        }
        return;
    }
  }

  [[nodiscard]] bool recognised() const {
    return count_ >= (cause_ == Cause::ended_by_target ? kEndedSessions : kBrokenRules);
  }
  // By whom else most likely, whether it is recognised() or not.
  [[nodiscard]] bool by_another_host() const {
    return cause_ == Cause::ended_by_target && std::max(count_, ended_soon_) >= kEndedSessions;
  }
  [[nodiscard]] Cause cause() const { return cause_; }
  [[nodiscard]] std::uint32_t times() const {
    return cause_ == Cause::ended_by_target ? std::max(count_, ended_soon_) : count_;
  }
  [[nodiscard]] static bool lasts(Duration up_for) { return up_for >= kLasted; }

  // At least so long until the next try; 0: as after any failure.
  [[nodiscard]] Duration wait() const {
    if (!recognised()) {
      return Duration::zero();
    }
    const std::uint32_t first = cause_ == Cause::ended_by_target ? kEndedSessions : kBrokenRules;
    return std::min<Duration>(kLongestWait,
                              Duration{kFirstWait} * (1U << std::min(count_ - first, 16U)));
  }

 private:
  void count(Cause cause) {
    count_ = cause == cause_ ? count_ + 1 : 1;
    cause_ = cause;
  }

  Cause cause_ = Cause::other;
  std::uint32_t count_ = 0;       // in a row
  std::uint32_t ended_soon_ = 0;  // sessions in a row that the target has ended
};

}  // namespace iscsi_blkback
