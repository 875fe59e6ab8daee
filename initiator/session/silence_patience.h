// SilencePatience: how long a session waits for a target that answers nothing, not even a NOP-Out,
// while its kernel still confirms what it gets. Such a target is dead, or it works on one command
// at a time and on one that takes long. Part of a Session; reactor thread.
//
// The first time path_timeout decides: other paths may be better. But a command that is sent again
// and given up again never ends. So silence is no end for a connection
//  - with a command outstanding that was given up for silence before, on this connection or another
//    one (four times command_timeout bounds it then), or
//  - for twice as long as the target has been silent before and then answered after all; for a
//  while.
#pragma once

#include <algorithm>
#include <chrono>

#include "base/clock.h"

namespace iscsi_blkback {

class SilencePatience {
 public:
  struct Facts {
    TimePoint now{};
    Duration silent_for{};         // nothing has arrived, with commands outstanding
    Duration peer_silence{};       // see ByteStream
    bool given_up_before = false;  // one of the outstanding commands was
  };

  // Asked when path_timeout is over.
  [[nodiscard]] bool waits_on(const Facts& facts) const {
    const bool known = facts.now < remembered_until_ && facts.silent_for < 2 * longest_silence_;
    return facts.peer_silence <= kPeerAnswers && (facts.given_up_before || known);
  }
  // waits_on() may say yes later: the peer's kernel is to be asked from now on.
  [[nodiscard]] bool may_wait_on(TimePoint now, bool given_up_before) const {
    return given_up_before || now < remembered_until_;
  }

  // The target has answered after so long.
  void answered_after(Duration silence, TimePoint now) {
    longest_silence_ = std::max(silence, now < remembered_until_ ? longest_silence_ : Duration{});
    remembered_until_ = now + kMemory;
  }
  [[nodiscard]] Duration longest_silence() const { return longest_silence_; }

  // The kernel is asked every second, and a lost packet is sent again within a fraction of one.
  static constexpr std::chrono::milliseconds kPeerAnswers{1600};
  static constexpr std::chrono::minutes kMemory{10};

 private:
  Duration longest_silence_{};
  TimePoint remembered_until_{};
};

}  // namespace iscsi_blkback
