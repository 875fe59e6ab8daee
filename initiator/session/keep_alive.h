// KeepAlive: whether a session's target lives, by what arrives from it. When nothing has for a
// while, a NOP-Out asks; when that is not answered either, the target is silent, which ends the
// connection unless SilencePatience knows better. It wakes up when there may be something to decide;
// who sends and receives is its Session, which owns it. Reactor thread.
//
// Silence lasts from the last byte that arrived, or from the first command after it where none was
// outstanding then. Limits: stall_probe, path_timeout, noop_out_interval and noop_out_timeout of
// SessionOptions. One NOP-Out is under way at most.
#pragma once

#include <cstdint>
#include <utility>

#include "base/clock.h"
#include "base/reactor.h"
#include "initiator/login/session_options.h"
#include "initiator/session/silence_patience.h"

namespace iscsi_blkback {

class KeepAlive {
 public:
  using Due = void (*)(void* owner) noexcept;
  // due: look() may say something else than before; schedule() comes after it. What is referred to
  // outlives it.
  KeepAlive(Reactor& reactor, const SessionOptions& options, Due due, void* owner)
      : options_(options), timer_(reactor, due, owner) {}

  // busy: commands are outstanding. Begins to watch, or goes on after due().
  void schedule(TimePoint now, bool busy);
  void stop();
  // The connection is gone; nothing of it is waited for. What was learnt of the target stays.
  void forget_connection();

  // The first command has been submitted while none was outstanding.
  void on_busy(TimePoint now);
  void on_received(TimePoint now) { last_received_ = now; }
  [[nodiscard]] TimePoint last_received() const { return last_received_; }

  enum class Verdict : std::uint8_t { lives, ask, silent };
  [[nodiscard]] Verdict look(TimePoint now, bool busy) const;
  // When it may say something else than before, if nothing arrives; max(): never.
  [[nodiscard]] TimePoint next_look(TimePoint now, bool busy) const;

  // A NOP-Out is to be sent; schedule() comes after it.
  void queue_ping(TimePoint now);
  // Whether one is, now.
  [[nodiscard]] bool take_queued() { return std::exchange(queued_, false); }
  [[nodiscard]] bool ping_outstanding() const { return outstanding_; }  // queued or sent
  [[nodiscard]] bool ping_sent() const { return outstanding_ && !queued_; }
  // Somebody waits for the answer to the one that is outstanding, or to the next one; likewise.
  void ask() { asked_for_ = true; }
  // The one that was sent is answered. Returns whether somebody is to hear of it.
  bool answered(TimePoint now, bool busy);
  [[nodiscard]] bool take_answer() { return std::exchange(answer_pending_, false); }

  // What counts when the target is silent.
  struct Silence {
    bool may_wait = false;  // commands are outstanding, and the session is to go on
    Duration peer_silence{};
    bool given_up_before = false;  // see SilencePatience
  };
  // After Verdict::silent: whether the connection goes on all the same.
  [[nodiscard]] bool goes_on(TimePoint now, bool busy, const Silence& silence);
  // The connection goes on although the target has been silent for as long as it may.
  [[nodiscard]] bool waits_on() const { return waits_on_; }
  void stop_waiting() { waits_on_ = false; }
  // Something has arrived while it waits on, before on_received(). Returns the longest silence that
  // this target has broken.
  Duration end_silence(TimePoint now);
  // goes_on() will want to know of the peer's silence: its kernel is to be asked from now on.
  [[nodiscard]] bool may_wait_on(TimePoint now, bool given_up_before) const {
    return patience_.may_wait_on(now, given_up_before);
  }

 private:
  [[nodiscard]] TimePoint silent_since() const;
  [[nodiscard]] TimePoint deadline(bool busy) const;

  const SessionOptions& options_;
  TimePoint last_received_{};
  TimePoint busy_since_{};
  bool outstanding_ = false;  // queued or sent, not answered
  bool queued_ = false;
  TimePoint queued_at_{};
  bool asked_for_ = false;
  bool answer_pending_ = false;  // whoever asked is to hear of it
  SilencePatience patience_;
  bool waits_on_ = false;
  Timer timer_;
  bool watches_ = false;
};

}  // namespace iscsi_blkback
