// Path: one way to the disk, a logical unit over a session that other disks may share, and all that
// belongs to it: whether it is silent, its registration for persistent reservations, commands of
// its own that activate or measure it, what it has told about how it serves the LUN, how often it
// has failed. It knows whether guest I/O may go this way: only while the session is up, after the
// LUN's identity, capacity and block size have been read in this login and found to be the disk's,
// and as long as neither an error nor the checker says otherwise. Owned by MultipathDevice. Reactor
// thread.
//
// Its PathChecker asks when nothing else has shown that the path works: an up path without a
// success since the last look, and a down path of a live session until it answers GOOD (then its
// identity is read again). Silent death of the connection is the session's affair (NOP-Out).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/session/session.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/error_policy.h"
#include "multipath/path/latency_estimate.h"
#include "multipath/path/latency_probe.h"
#include "multipath/path/lun_verifier.h"
#include "multipath/path/marginal_path.h"
#include "multipath/path/path_access.h"
#include "multipath/path/path_activation.h"
#include "multipath/path/path_checker.h"
#include "multipath/path/path_load.h"
#include "multipath/path/path_state.h"
#include "multipath/path/pr_registration.h"
#include "multipath/path/queue_depth.h"
#include "multipath/path/stall_detector.h"

namespace iscsi_blkback {

class Path;

// A command of the guest's that goes to a path, or is there: caller-owned, and a path's from
// Path::submit() to on_done.
struct PathCommand : ListHook<PathCommand> {
  ScsiTask task;
  // Of a discard; the form is the sender's to set.
  DiscardForm discard_form = DiscardForm::none;
  LogicalUnit::DiscardParameters parameters;
  Path* path = nullptr;  // where it is, or was last
  TimePoint sent_at{};   // in the time of turns
  // What it adds to PathLoad::bytes; the sender's to set.
  std::uint32_t load_bytes = 0;
  // From the reactor. The path has counted it as ended, and knows what the error says of itself.
  void (*on_done)(PathCommand& command, ErrorClass error) noexcept = nullptr;
};

class Path final : private SessionObserver,
                   private LunVerifier::Owner,
                   private PathChecker::Owner,
                   private StallDetector::Owner,
                   private PrRegistration::Owner,
                   private PathActivation::Owner,
                   private LatencyProbe::Owner {
 public:
  class Owner {
   public:
    // A login succeeded: what the session's earlier connections left at the target is terminated.
    virtual void on_path_session_up(Path& path) noexcept = 0;
    // Whether the LUN is the disk's; the first one asked about decides what the disk is.
    [[nodiscard]] virtual Result<void> check_identity(Path& path,
                                                      const LogicalUnitIdentity& identity) = 0;
    virtual void on_path_changed(Path& path) noexcept = 0;
    // identity() has been decided anew; on_path_changed() follows where the state changes with it.
    virtual void on_path_identity(Path& path) noexcept = 0;
    // How well the path serves the LUN, as read now; perhaps as before.
    virtual void on_path_access(Path& path) noexcept = 0;
    // The target says that a write has failed which it had answered with GOOD.
    virtual void on_loss_told(Path& path) noexcept = 0;
    // A command of the path's own has ended, or is waited for no longer: perhaps the path is idle.
    virtual void on_path_idle(Path& path) noexcept = 0;
    // suspect() has changed.
    virtual void on_suspect(Path& path) noexcept = 0;
    virtual void on_suspicion_over(Path& path) noexcept = 0;
    // Still suspect a moment after on_suspect; once each time.
    virtual void on_stall_persists(Path& path) noexcept = 0;
    // Once for each activate(), however late.
    virtual void on_activation_done(Path& path, PathActivation::Outcome outcome) noexcept = 0;
    // After measure(), unless something has gone wrong with it.
    virtual void on_latency_measured(Path& path, const LatencyEstimate& measured) noexcept = 0;
    // Whether LOGICAL UNIT RESET, which ends everybody's commands, is allowed at the disk's LUN
    // now.
    [[nodiscard]] virtual bool may_reset_lun() const noexcept { return false; }

   protected:
    ~Owner() = default;
  };

  struct Options {
    PathCheckerOptions checker;
    MarginalPathOptions marginal;
    std::uint64_t host_key = 0;  // see PrRegistration
    RegistrationTable* registrations = nullptr;
  };

  // portal_name: as the disk's operator wrote it; disks that share the session may have other names
  // for it. load: all 0; the path counts there, and nobody else does. Both outlive the path.
  Path(Reactor& reactor, Session& session, std::uint16_t lun, std::string portal_name,
       std::uint32_t index, PathLoad& load, const Options& options, DiskLog& log, Owner& owner);
  ~Path();  // idle(), nothing that has_own_commands(), not key().registering()

  void start();
  // No probe is started any more; the session is still observed, because its logins are fences.
  void stop();
  [[nodiscard]] bool stopped() const { return stopped_; }
  // Nothing of the path's own (checks, identification) is outstanding. Guest I/O is the owner's.
  [[nodiscard]] bool idle() const { return checker_.idle() && !verifier_.asking_for_capacity(); }
  // An activation, or a read that measures.
  [[nodiscard]] bool has_own_commands() const {
    return activation_.outstanding() || probe_.outstanding();
  }

  // Guest I/O. submit: only when able(), the command's task free; never completes from inside.
  [[nodiscard]] bool able() const {
    return state_ == PathState::up && load_.requests < depth_.limit() &&
           session_.state() == SessionState::logged_in;
  }
  void submit(PathCommand& command, const BlockRequest& request);
  // Those that are here, in the order in which they were submitted.
  template <class Visit>
  void for_each_command(Visit&& visit) {
    commands_.for_each(visit);
  }
  // Commands that wait in the session for the target's window, no byte of them sent, end with
  // not_sent later in this turn.
  void withdraw_unsent();

  void set_checker(PathCheckerKind kind) { checker_.set_kind(kind); }

  // Silence: see StallDetector.
  void probe_silence() { silence_.probe(); }
  [[nodiscard]] bool silence_goes_on() const { return silence_.silence_goes_on(); }

  // What is registered for persistent reservations.
  [[nodiscard]] PrRegistration& key() { return key_; }
  [[nodiscard]] const PrRegistration& key() const { return key_; }

  // Tells the array to serve the LUN here. Only when can_activate() and not activating().
  void activate() { activation_.start(access_.told()); }
  [[nodiscard]] bool can_activate() const { return PathActivation::possible(access_.told()); }
  [[nodiscard]] bool activating() const { return activation_.outstanding(); }
  void withdraw_activation() { activation_.withdraw(); }

  // How well the path serves the LUN, as it has told last; nothing before told_access().
  [[nodiscard]] const LogicalUnitAccess& access() const { return access_.told(); }
  [[nodiscard]] bool told_access() const { return access_.is_told(); }
  // Once after told_access(): the disk has not had the path before.
  [[nodiscard]] bool take_new() { return access_.take_new(); }
  [[nodiscard]] const std::string& serial() const { return serial_; }  // VPD 0x80; empty: none
  // Another port of the same target tells these port groups. True: the state of the path's own
  // group is not what it was.
  [[nodiscard]] bool take_port_groups(const LogicalUnitAccess& told) {
    return access_.take_port_groups(told);
  }

  // What the path's reads and writes take. Requests that have been timed since the last call.
  [[nodiscard]] const LatencyEstimate& latency() const { return latency_; }
  void add_latency(Duration took) {
    latency_.add(took);
    ++timed_requests_;
  }
  void set_latency(const LatencyEstimate& latency) { latency_ = latency; }
  [[nodiscard]] std::uint32_t take_timed_requests() { return std::exchange(timed_requests_, 0); }
  // Measures it, up, logged in and not measuring().
  void measure() { probe_.start(); }
  [[nodiscard]] bool measuring() const { return probe_.outstanding(); }

  // It was up, and is not any more because of an error; or a command has failed while it is up.
  // Either may make it marginal, see MarginalPath.
  void note_failure() { note_marginal(&MarginalPath::on_failed); }
  void note_error() { note_marginal(&MarginalPath::on_error); }
  // Until when it is a last resort; nullopt: it is none.
  [[nodiscard]] std::optional<TimePoint> marginal_until() const;

  // Asks whether the LUN is as large as when it was identified; when it is not, it is identified
  // again. A quarantined path is in any case.
  void look_at_capacity();
  [[nodiscard]] bool looking_at_capacity() const { return verifier_.asking_for_capacity(); }
  // As the identification has told it; 0: it has not.
  [[nodiscard]] std::uint64_t block_count() const { return verifier_.block_count(); }

  // Verdict of the error policy. (Where that is to verify the path, it does so by itself: it hears
  // of every unit attention of its LUN, whichever command has met it.)
  void fail(ErrorClass error);

  // The LUN may be another one by now, or tell more than before: no guest I/O until it has been
  // identified again.
  void verify(const std::string& why);

  // Reads again how well the LUN is served here; guest I/O goes on meanwhile.
  void refresh_access();
  // The same when nobody has said that it has changed: TEST UNIT READY is not sent to a path whose
  // requests have succeeded since the last time.
  void follow_access();
  [[nodiscard]] bool reading_access() const { return verifier_.reading_access(); }
  // A question is at the target, or was given up and is there still: another path may answer
  // sooner.
  [[nodiscard]] bool awaits_answer() const {
    return reading_access() || logical_unit_.unanswered() != 0;
  }

  [[nodiscard]] PathState state() const { return state_; }
  // The session is up, and the LUN is being asked who it is or changes its access state: an answer
  // comes soon.
  [[nodiscard]] bool identifying() const {
    return verifier_.identifying() || (access_.changing() && state_ == PathState::pending);
  }
  // identifying(), and not for so long that the LUN may hang there.
  static constexpr std::chrono::milliseconds kAnswerTime{200};
  [[nodiscard]] bool answers_soon() const {
    return identifying() && (!verifier_.identifying() ||
                             reactor_.now() < verifier_.identifying_since() + kAnswerTime);
  }
  // It is not known yet what becomes of it, whatever last_error() says: an intermediate state is no
  // reason to give a disk up that is being attached.
  [[nodiscard]] bool on_its_way() const;
  // So long a LUN may say after a login that it is not ready before that counts as its answer.
  static constexpr std::chrono::seconds kReadyTime{15};
  using Identity = LunVerifier::Identity;
  [[nodiscard]] Identity identity() const { return verifier_.identity(); }
  // When the last identification began: what it has found was read since.
  [[nodiscard]] TimePoint asked_at() const { return verifier_.identifying_since(); }
  // identifying(), of a path that was up before: in a moment it may be again.
  [[nodiscard]] bool verifying() const { return was_up_ && identifying(); }
  // For commands of the owner's own. It is busy while identifying.
  [[nodiscard]] LogicalUnit& logical_unit() { return logical_unit_; }
  [[nodiscard]] const LogicalUnit& logical_unit() const { return logical_unit_; }
  [[nodiscard]] Session& session() const { return session_; }
  [[nodiscard]] std::uint16_t lun() const { return lun_; }
  [[nodiscard]] const std::string& portal_name() const { return portal_name_; }
  [[nodiscard]] std::uint32_t index() const { return index_; }
  [[nodiscard]] std::uint32_t in_flight() const { return load_.requests; }
  [[nodiscard]] std::uint32_t writes_in_flight() const { return load_.writes; }
  [[nodiscard]] std::uint64_t requests() const { return requests_; }
  [[nodiscard]] std::uint64_t failures() const { return failures_; }
  // While the session is up and the path is down.
  [[nodiscard]] CheckerFinding finding() const {
    return state_ == PathState::down && session_.state() == SessionState::logged_in
               ? finding_
               : CheckerFinding::other;
  }
  // Why it is not up; the session's reason while that is down.
  [[nodiscard]] std::string last_error() const;

 private:
  void on_session_up(Session& session) noexcept override;
  void on_session_down(Session& session, const Error& why) noexcept override;
  void on_scsi_event(Session& session, std::uint64_t lun, const SenseData& sense) noexcept override;
  [[nodiscard]] ResetConsent may_reset(std::uint64_t lun) const noexcept override {
    return lun != logical_unit_.lun() ? ResetConsent::not_concerned
           : owner_.may_reset_lun()   ? ResetConsent::allowed
                                      : ResetConsent::refused;
  }

  // Commands of the path's own may go to the LUN.
  [[nodiscard]] bool may_ask() const {
    return !stopped_ && session_.state() == SessionState::logged_in;
  }
  static void on_task_complete(ScsiTask& task) noexcept;
  void note_end(const PathCommand& command, ErrorClass error);
  void note_failed_command(ErrorClass error);

  void on_suspect() noexcept override;
  void on_suspicion_over() noexcept override { owner_.on_suspicion_over(*this); }
  void on_stall_persists() noexcept override { owner_.on_stall_persists(*this); }
  [[nodiscard]] bool has_outstanding() const noexcept override { return load_.requests != 0; }
  void on_key_settled() noexcept override { owner_.on_path_idle(*this); }
  void on_key_refused(const char* why) noexcept override;
  void on_key_kept(const char* why) noexcept override;
  void on_activation_done(PathActivation::Outcome outcome) noexcept override {
    owner_.on_path_idle(*this);
    owner_.on_activation_done(*this, outcome);
  }
  void on_measured(const LatencyEstimate& measured) noexcept override {
    owner_.on_path_idle(*this);
    owner_.on_latency_measured(*this, measured);
  }
  void on_probe_failed() noexcept override { owner_.on_path_idle(*this); }
  [[nodiscard]] bool goes_on_measuring() const noexcept override {
    return state_ == PathState::up && may_ask();
  }
  void note_marginal(void (MarginalPath::*event)(TimePoint, const MarginalPathOptions&));
  void note_access(const LogicalUnitAccess& access);

  void on_identity() noexcept override { owner_.on_path_identity(*this); }
  void on_identified(Result<LogicalUnitIdentity> identity) override;
  void on_unanswered(std::string why, bool silent) override;
  void on_access(Result<LogicalUnitIdentity> identity) override;
  void on_capacity(bool changed) override;
  void identify();
  void set_state_of(const LogicalUnitAccess& access);
  void on_look_due() noexcept override;
  void on_checked(ErrorClass outcome, bool changed) noexcept override;
  void on_check_overdue(bool again) noexcept override;
  void on_checker_idle() noexcept override;
  void look_later();
  void set_state(PathState state, std::string why, CheckerFinding finding = CheckerFinding::other);

  Reactor& reactor_;
  Session& session_;
  const std::uint16_t lun_;
  const std::string portal_name_;
  const std::uint32_t index_;
  const MarginalPathOptions marginal_options_;
  DiskLog& log_;
  Path::Owner& owner_;
  LogicalUnit logical_unit_;

  PathState state_ = PathState::pending;
  std::string last_error_ = "not logged in yet";
  CheckerFinding finding_ = CheckerFinding::other;
  bool started_ = false;
  bool stopped_ = false;

  TimePoint session_up_at_{};
  bool not_ready_ = false;  // the LUN has said so when it was to be identified
  bool was_up_ = false;  // in this login, and since then neither down nor anything else but pending

  LunVerifier verifier_;
  PathChecker checker_;
  IntrusiveList<PathCommand> commands_;  // in flight, in the order in which they were submitted
  PathLoad& load_;                       // what they are
  std::uint64_t requests_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t successes_followed_ = 0;  // so many when follow_access() last looked
  QueueDepth depth_;

  StallDetector silence_;
  PrRegistration key_;
  PathActivation activation_;
  LatencyProbe probe_;
  MarginalPath marginal_;
  PathAccess access_;
  std::string serial_;
  LatencyEstimate latency_;
  std::uint32_t timed_requests_ = 0;
};

}  // namespace iscsi_blkback
