// StallDetector: whether a path has gone silent with I/O outstanding. Such a path is suspect: the
// session asks the target with a NOP-Out at once, and until anything has come back the device uses
// other paths. What is lost is the session's to decide (path_timeout). Owned by Path. Reactor
// thread.
//
// Silent means that nothing at all has arrived over the connection for stall_probe, or for eight
// times the usual latency of the path's I/O where that is longer (at most half of path_timeout, so
// that the NOP-Out has its chance). A target that answers the NOP-Out and not the I/O is slow, not
// silent: it has twice as long until I/O has been answered again. (Not longer and longer: when it
// dies after that, it shall be noticed as soon.)
//
// Cost per request: two comparisons and the average. One timer, that is not touched by requests:
// when it fires it looks how long the silence has lasted, and starts for when it could be enough.
#pragma once

#include <cstdint>

#include "base/reactor.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

class StallDetector final : private SessionObserver {
 public:
  class Owner {
   public:
    // From the reactor. suspect() has changed.
    virtual void on_suspect() noexcept = 0;
    virtual void on_suspicion_over() noexcept = 0;
    // Still suspect a moment after on_suspect; once each time.
    virtual void on_stall_persists() noexcept = 0;
    // Requests that were given to the path and have not come back.
    [[nodiscard]] virtual bool has_outstanding() const noexcept = 0;

   protected:
    ~Owner() = default;
  };

  StallDetector(Reactor& reactor, Session& session, Owner& owner);
  ~StallDetector();
  StallDetector(const StallDetector&) = delete;
  StallDetector& operator=(const StallDetector&) = delete;

  // A request is given to the path, which had none.
  void first_sent(TimePoint now) {
    quiet_since_ = now;
    if (!timer_.armed()) {
      start_timer();
    }
  }
  // The target has answered a request, which counts as outstanding no more.
  void answered(Duration latency) {
    learn(latency);
    if (suspect_ || slow_) [[unlikely]] {
      slow_ = false;
      end_suspicion();
    }
  }

  // Asks whether the path lives although it has nothing to do: a path that has gone silent was
  // perhaps not the only one. Becomes suspect when no answer comes.
  void probe();

  [[nodiscard]] bool suspect() const { return suspect_; }
  // Suspect for longer than a lost packet takes to be sent again.
  [[nodiscard]] bool silence_goes_on() const { return goes_on_; }

 private:
  void on_session_up(Session& session) noexcept override;
  void on_session_down(Session& session, const Error& why) noexcept override;
  void on_ping_answered(Session& session) noexcept override;

  void learn(Duration latency) {
    // Rises fast and falls slowly, so that it is near the high end of what is usual; one outlier
    // does not move it far.
    if (latency > usual_latency_) {
      const Duration most = 2 * usual_latency_ + kSmallLatency;
      usual_latency_ += ((latency < most ? latency : most) - usual_latency_) / 8;
    } else {
      usual_latency_ -= (usual_latency_ - latency) / 64;
    }
  }
  void on_timer();
  void start_timer();
  void end_suspicion();
  [[nodiscard]] bool waits() const { return probing_ || owner_.has_outstanding(); }
  [[nodiscard]] TimePoint silent_at() const;

  static constexpr Duration kSmallLatency = std::chrono::milliseconds(1);

  Reactor& reactor_;
  Session& session_;
  Owner& owner_;
  Timer timer_;
  bool probing_ = false;
  bool slow_ = false;  // a NOP-Out was answered, I/O was not
  bool suspect_ = false;
  bool goes_on_ = false;
  TimePoint quiet_since_{};  // when it began to have something to wait for
  Duration usual_latency_{};
};

}  // namespace iscsi_blkback
