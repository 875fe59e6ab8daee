// PortalGroupTrial: finds out whether two portals with one portal group tag belong to one target,
// so that a login through one of them ends what the same session has left at the other (session
// reinstatement, RFC 7143 6.3.5). The tag does not tell: each node of a pair numbers its groups for
// itself, mostly from 1. Owned by NexusFencer, one at a time. Reactor thread.
//
// The trial: a session with an ISID of its own logs in at the first portal, then one with the same
// ISID at the second. Where the target ends the first one's connection for that, both portals are
// of one nexus space. That it was the target which did it, and neither a cut nor a restart, is
// taken for granted only when the disks' own sessions through both portals live on: each has to
// answer two NOP-Outs after that (the first answer may be one that was on its way already). Both
// sessions of the trial log out at once. Nothing waits for a trial.
//
// What was found holds for the two logins that were there: addresses move between nodes, so that a
// session's next login may lead to another one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

enum class TrialVerdict : std::uint8_t {
  proven,        // one nexus space
  refuted,       // the first session went on
  inconclusive,  // something else has ended the trial
};

// What is known of a trial under way.
struct TrialFacts {
  bool disturbed = false;  // a login or another connection than the first one has failed
  bool first_up = false;
  bool first_ended = false;  // its connection
  bool second_started = false;
  bool second_up = false;
  bool asked = false;     // the disks' own sessions, after both of the above
  bool answered = false;  // by both of them
  bool time_over = false;
};

enum class TrialStep : std::uint8_t { wait, start_second, ask, end_proven, end_refuted, give_up };

[[nodiscard]] TrialStep next_step(const TrialFacts& facts);

// The ISID of a trial beside a session of that ISID. The highest bit of its qualifier tells it from
// those of all guests' disks, in which the qualifier is the guest's number (session_isid.h), and
// beside a session of lunex, which has that bit, the next one does.
[[nodiscard]] Isid trial_isid(const Isid& isid);

// Which logins of sessions belong to one nexus space, as far as trials have shown: a value.
class NexusSpaces {
 public:
  // Of a login, and of all that are known to be of its nexus space; 0: none.
  using Number = std::uint64_t;

  void logged_in(const Session& session);
  void forget(const Session& session);

  [[nodiscard]] Number number(const Session& session) const;
  // Of their last logins.
  [[nodiscard]] bool same(const Session& one, const Session& other) const;
  // They are not known to be, although that was tried.
  [[nodiscard]] bool tried_in_vain(const Session& one, const Session& other) const;
  // When a trial makes sense; TimePoint::max(): not before one of them has logged in again.
  [[nodiscard]] TimePoint trial_due(const Session& one, const Session& other) const;

  using Pair = std::pair<const Session*, const Session*>;
  using Numbers = std::pair<Number, Number>;
  // numbers: of the two when the trial began.
  void tried(const Pair& sessions, const Numbers& numbers, TrialVerdict verdict, TimePoint now);

  // Between two trials of the same two: after one that has proven something, and after another one.
  static constexpr std::chrono::seconds kAfterProof{10};
  static constexpr std::chrono::minutes kAfterFailure{10};

 private:
  struct Login {
    const Session* session;
    Number number;
  };
  struct Past {
    Pair sessions;
    TimePoint again_at;
    bool proven;
  };
  [[nodiscard]] const Past* past(const Session& one, const Session& other) const;

  Number last_ = 0;
  std::vector<Login> logins_;
  std::vector<Numbers> refuted_;
  std::vector<Past> past_;
};

class PortalGroupTrial final {
 public:
  class Owner {
   public:
    // From the reactor, once; nothing of the trial is left. It may be deleted.
    virtual void on_trial_over(TrialVerdict verdict) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // Two sessions that are logged in and not redirected, in portal groups with one tag. Begins at
  // once.
  PortalGroupTrial(Reactor& reactor, Session& first, Session& second, Owner& owner);
  ~PortalGroupTrial();  // when it is over
  PortalGroupTrial(const PortalGroupTrial&) = delete;
  PortalGroupTrial& operator=(const PortalGroupTrial&) = delete;

  [[nodiscard]] bool concerns(const Session& session) const {
    return sessions_.first == &session || sessions_.second == &session;
  }
  [[nodiscard]] const NexusSpaces::Pair& sessions() const { return sessions_; }  // to be compared
  [[nodiscard]] bool ending() const { return ending_; }

  // The sessions are not used from now on; the end follows.
  void cancel();

 private:
  class Visitor;
  // Hears of one of the disks' own sessions.
  class Witness final : public SessionObserver {
   public:
    Witness(PortalGroupTrial& trial, std::size_t which) : trial_(trial), which_(which) {}
    void on_session_up(Session& /*session*/) noexcept override {}
    void on_session_down(Session& /*session*/, const Error& /*why*/) noexcept override {
      trial_.disturb();
    }
    void on_ping_answered(Session& session) noexcept override { trial_.on_answer(session, which_); }

   private:
    PortalGroupTrial& trial_;
    const std::size_t which_;
  };

  void disturb();
  void on_answer(Session& session, std::size_t which);
  void on_visitor_up(const Visitor& visitor);
  void on_visitor_down(const Visitor& visitor, const Error& why);
  void advance();
  void end(TrialVerdict verdict);
  void look_whether_over();

  Reactor& reactor_;
  Owner& owner_;
  std::array<Session*, 2> own_;  // the disks'; until ending_
  const NexusSpaces::Pair sessions_;
  const std::uint16_t portal_group_;
  std::array<Witness, 2> witnesses_;
  TrialFacts facts_;
  std::array<std::unique_ptr<Visitor>, 2> visitors_;
  std::array<int, 2> answers_left_{};
  bool ending_ = false;
  TrialVerdict verdict_ = TrialVerdict::inconclusive;
  Timer timer_;
  Deferred advance_;
  Deferred look_whether_over_;
};

}  // namespace iscsi_blkback
