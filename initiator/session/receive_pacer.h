// ReceivePacer: when the next receive of a session starts, and how much it waits for and takes.
// It starts after what is sent in the same turn: the answers to that may be there then. See
// CompletionModerator for the waiting. Part of a Session, which owns it; reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/reactor.h"
#include "initiator/session/completion_moderator.h"

namespace iscsi_blkback {

class ReceivePacer {
 public:
  using WaitedInVain = void (*)(void* owner) noexcept;
  // waited_in_vain: the receive that is under way is to wait for nothing more.
  ReceivePacer(Reactor& reactor, WaitedInVain waited_in_vain, void* owner)
      : waited_in_vain_(waited_in_vain),
        owner_(owner),
        timer_(
            reactor, [](void* self) noexcept { static_cast<ReceivePacer*>(self)->on_timer(); },
            this) {}

  // Of what a target sends in one go, a receive takes a part: while it is looked at and the next
  // commands are sent for it, the target has something to do, and what is left is there at once for
  // the next receive, which need not wait. Taking all, each side would sleep while the other works.
  // (One segment on the way through Linux has up to 64 KiB.)
  [[nodiscard]] static std::size_t part_bytes(std::uint32_t in_flight) {
    return 40 * 1024 + in_flight * std::size_t{512};
  }

  // A receive has ended.
  void stop_waiting() { timer_.stop(); }
  // It has brought so many bytes, and in them answers to some of the commands that were in flight;
  // the next one is due.
  void received(std::size_t bytes, std::uint32_t answers, std::uint32_t in_flight, TimePoint now) {
    policy_.received(bytes, answers, in_flight, now);
    answers_ = answers;
    due_ = true;
  }
  [[nodiscard]] bool take_due() { return std::exchange(due_, false); }
  // For how many bytes the receive that starts now waits. partial: what was received ends in the
  // middle of a large answer.
  [[nodiscard]] std::size_t low_water_bytes(std::uint32_t in_flight, bool partial, TimePoint now) {
    // A receive without an answer has brought a part of one: the rest is on its way.
    const std::size_t bytes = answers_ != 0 && !partial ? policy_.low_water_bytes(in_flight) : 1;
    if (bytes != 1) {
      timer_.start_at(now + CompletionModerator::kPatience);
    }
    return bytes;
  }

  // The connection is another one.
  void forget_connection() {
    due_ = false;
    timer_.stop();
  }

 private:
  void on_timer() {
    policy_.waited_in_vain();
    waited_in_vain_(owner_);
  }

  const WaitedInVain waited_in_vain_;
  void* const owner_;
  Timer timer_;
  CompletionModerator policy_;
  std::uint32_t answers_ = 0;  // of the last receive
  bool due_ = false;
};

}  // namespace iscsi_blkback
