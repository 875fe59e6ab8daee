// ReloginBackoff: when a session that is not logged in tries again, and what its failures add up
// to. The wait doubles with each failure in a row from relogin_backoff_min to relogin_backoff_max,
// with jitter; it is longer where the target demands it (Time2Wait) or connections end in the same
// way again and again (see repeated_ends.h). Decisions over times that it is given; its Session
// owns it. Reactor thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "initiator/login/session_options.h"
#include "initiator/session/repeated_ends.h"

namespace iscsi_blkback {

class ReloginBackoff {
 public:
  using Cause = RepeatedEnds::Cause;

  // Of still_trying(): not any more after kFewTries in a row that have taken kFewTriesLeast, or after
  // kFewTriesMost of them, however few.
  static constexpr std::uint32_t kFewTries = 3;
  static constexpr std::chrono::seconds kFewTriesLeast{1};
  static constexpr std::chrono::seconds kFewTriesMost{10};
  // A session that was up for less than this counts as one more failure, so that a target that
  // accepts logins and drops them is not asked ten times a second.
  static constexpr std::chrono::seconds kStableAfter{5};
  static constexpr std::chrono::seconds kMaxTime2Wait{60};  // ours: no target parks us for long

  explicit ReloginBackoff(const SessionOptions& options) : options_(options) {}  // outlive it

  // Nothing has failed yet.
  void start(TimePoint now);
  void connecting() { cause_ = Cause::other; }
  void logged_in(TimePoint now) { up_since_ = now; }
  // Why the connection ends that is about to be dropped.
  void blame(Cause cause) { cause_ = cause; }
  // The target wants to be left alone before the next try.
  void demand(std::chrono::seconds time2wait);

  // A connection that was logged in has ended.
  void lost(TimePoint now);
  // Counts the end of a connection, after lost() where it was up. time2wait: DefaultTime2Wait of
  // the last login. Whether this end is one of many.
  [[nodiscard]] bool ended(TimePoint now, bool was_up, std::chrono::seconds time2wait);
  // The sentence for such an end. where: the target's name.
  [[nodiscard]] Error that_it_keeps_ending(const Error& why, const std::string& where) const;

  // How long to wait before the next try. random: for the jitter. same_login: the last failure was
  // none but another offer of CHAP algorithms, a part of the same login.
  [[nodiscard]] Duration next_wait(std::uint64_t random, bool same_login);

  // While not logged in: what has failed is not the end of it.
  [[nodiscard]] bool still_trying(TimePoint now) const;
  // up: logged in now, which is believed once it has lasted.
  [[nodiscard]] bool keeps_ending(TimePoint now, bool up) const {
    return ends_.recognised() && !(up && RepeatedEnds::lasts(now - up_since_));
  }

 private:
  const SessionOptions& options_;
  std::uint32_t failures_ = 0;  // in a row
  RepeatedEnds ends_;
  Cause cause_ = Cause::other;  // of the connection that just ends
  TimePoint up_since_{};
  TimePoint trying_since_{};   // without having been up for long
  Duration demanded_{};        // by the target, before the next try
  Duration waited_at_most_{};  // before the last login
};

}  // namespace iscsi_blkback
