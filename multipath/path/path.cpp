#include "multipath/path/path.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

CheckerFinding finding_of(ErrorClass error) {
  return error == ErrorClass::lun_missing ? CheckerFinding::disconnected
         : concerns_access(error)         ? CheckerFinding::access_state
                                          : CheckerFinding::other;
}

}  // namespace

const char* to_string(PathState state) {
  switch (state) {
    case PathState::pending:
      return "pending";
    case PathState::up:
      return "up";
    case PathState::ghost:
      return "ghost";
    case PathState::down:
      return "down";
    case PathState::quarantined:
      return "quarantined";
  }
  return "unknown";
}

const char* to_string(CheckerFinding finding) {
  switch (finding) {
    case CheckerFinding::other:
    case CheckerFinding::access_state:
      break;
    case CheckerFinding::timeout:
      return "i/o timeout";
    case CheckerFinding::disconnected:
      return "disconnected";
  }
  return "faulty";
}

Path::Path(Reactor& reactor, Session& session, std::uint16_t lun, std::string portal_name,
           std::uint32_t index, PathLoad& load, const Options& options, DiskLog& log, Owner& owner)
    : reactor_(reactor),
      session_(session),
      lun_(lun),
      portal_name_(std::move(portal_name)),
      index_(index),
      marginal_options_(options.marginal),
      log_(log),
      owner_(owner),
      logical_unit_(reactor, session, encode_lun(lun)),
      verifier_(reactor, logical_unit_, options.checker.checker_timeout, *this),
      checker_(reactor, logical_unit_, options.checker, *this),
      load_(load),
      depth_(session.options().max_commands),
      silence_(reactor, session, *this),
      key_(reactor, logical_unit_, lun, options.host_key, *options.registrations, *this),
      activation_(logical_unit_, *this),
      probe_(reactor, logical_unit_, *this) {}

Path::~Path() {
  ISCSI_BLKBACK_ASSERT(idle() && load_.requests == 0 && load_.bytes == 0);
  verifier_.cancel();
  if (started_) {
    session_.remove_observer(*this);
  }
}

void Path::start() {
  ISCSI_BLKBACK_ASSERT(!started_);
  started_ = true;
  session_.add_observer(*this);
  if (session_.state() == SessionState::logged_in) {
    session_up_at_ = reactor_.now();
    identify();
  }
}

void Path::stop() {
  stopped_ = true;
  checker_.stop();
  verifier_.cancel();
}

void Path::submit(PathCommand& command, const BlockRequest& request) {
  command.path = this;
  command.sent_at = reactor_.turn_time();
  command.task.owner = &command;
  command.task.on_complete = &Path::on_task_complete;
  if (load_.requests++ == 0) {
    silence_.first_sent(command.sent_at);
  }
  commands_.push_back(command);
  if (request.operation == BlockOperation::discard) [[unlikely]] {
    logical_unit_.prepare_discard(command.task, request, command.discard_form, command.parameters);
  } else {
    logical_unit_.prepare_io(command.task, request);
  }
  load_.writes += command.task.direction == DataDirection::out ? 1 : 0;
  load_.bytes += command.load_bytes;
  ++requests_;
  session_.submit(command.task);
}

// Inline, as each command comes by.
inline void Path::note_end(const PathCommand& command, ErrorClass error) {
  ISCSI_BLKBACK_ASSERT(load_.requests > 0);
  --load_.requests;
  load_.writes -= command.task.direction == DataDirection::out ? 1 : 0;
  load_.bytes -= command.load_bytes;
  if (error == ErrorClass::success) {
    checker_.passed();
    if (depth_.limited()) [[unlikely]] {
      depth_.on_success(reactor_.now());
    }
  } else {
    note_failed_command(error);
  }
}

void Path::on_task_complete(ScsiTask& task) noexcept {
  auto& command = *static_cast<PathCommand*>(task.owner);
  Path& path = *command.path;
  const ErrorClass error = task.succeeded() ? ErrorClass::success : classify(task);
  command.unlink();
  path.note_end(command, error);
  if (error != ErrorClass::connection_lost && error != ErrorClass::not_sent) [[likely]] {
    path.silence_.answered(path.reactor_.turn_time() - command.sent_at);
  }
  command.on_done(command, error);
}

void Path::withdraw_unsent() {
  session_.withdraw_unsent(
      [](const ScsiTask& task, const void* path) noexcept {
        return task.on_complete == &Path::on_task_complete &&
               static_cast<const PathCommand*>(task.owner)->path == path;
      },
      this);
}

void Path::note_failed_command(ErrorClass error) {
  ++failures_;
  if (concerns_access(error)) {
    refresh_access();
  }
  if (error == ErrorClass::communication_failure && state_ == PathState::up && may_ask() &&
      !verifier_.identifying() && checker_.idle()) {
    checker_.check();
  }
  if (error == ErrorClass::task_set_full) {
    depth_.on_task_set_full(reactor_.now(), load_.requests);
  } else if (error == ErrorClass::busy) {
    depth_.on_busy(reactor_.now(), load_.requests);
  }
}

void Path::fail(ErrorClass error) {
  if (state_ == PathState::up) {
    set_state(PathState::down, to_string(error), finding_of(error));
    look_later();
  }
}

// What was answered since the last time that the LUN may have changed was perhaps answered by one
// that was there in between.
void Path::verify(const std::string& why) {
  verifier_.set_identity(Identity::unknown);
  if (!may_ask()) {
    return;  // the next login verifies
  }
  // A quarantined path stays that until it has shown to lead to the disk after all.
  const bool already = verifier_.identifying();
  identify();
  if (!already && state_ != PathState::quarantined) {
    set_state(PathState::pending, why);
  }
}

bool Path::on_its_way() const {
  if (session_.state() != SessionState::logged_in) {
    return session_.still_trying();
  }
  return state_ == PathState::pending ||
         (state_ == PathState::down && not_ready_ && reactor_.now() < session_up_at_ + kReadyTime);
}

std::string Path::last_error() const {
  const bool session_up = session_.state() == SessionState::logged_in;
  return state_ == PathState::up ? std::string()
         : session_up            ? last_error_
                                 : session_.last_error().message;
}

void Path::on_session_up(Session& /*session*/) noexcept {
  depth_.reset();
  latency_.clear();  // it may be another way
  session_up_at_ = reactor_.now();
  owner_.on_path_session_up(*this);
  if (!stopped_) {
    identify();
    set_state(PathState::pending, "being identified");
  }
}

void Path::on_session_down(Session& /*session*/, const Error& why) noexcept {
  checker_.pause();
  verifier_.cancel();
  access_.forget_change();
  if (!stopped_) {
    set_state(PathState::down, why.message);
  }
}

// The one place for what the target tells of the LUN, whichever command it came with. Other events
// are for the log (the session's).
void Path::on_scsi_event(Session& /*session*/, std::uint64_t lun, const SenseData& sense) noexcept {
  constexpr std::uint16_t kReportedLunsChanged = 0x3f0e;  // says something of every LUN
  if (lun != logical_unit_.lun() && sense.code() != kReportedLunsChanged) {
    return;
  }
  if (tells_loss(sense)) {
    log_.error(
        "by portal {} the target says that a write has failed which it had acknowledged before "
        "(sense {}): data of this disk is lost at the target; the next flush fails",
        portal_name_, sense_text(sense));
    owner_.on_loss_told(*this);
    return;
  }
  ScsiTask event;
  event.status = ScsiStatus::check_condition;
  event.sense = sense;
  const ErrorClass error = classify(event);
  if (rule_for(error).path == PathVerdict::verify) {
    verify(to_string(error));
  } else if (concerns_access(error)) {
    refresh_access();
  } else if (error == ErrorClass::space_attention) {
    log_.warning(
        "the LUN's thin provisioning has come to its soft threshold: the array is running out of "
        "space");
  }
}

void Path::look_at_capacity() {
  if (!may_ask() || verifier_.identifying()) {
    return;
  }
  if (state_ == PathState::quarantined) {
    identify();
  } else if (state_ == PathState::up && !verifier_.asking_for_capacity()) {
    verifier_.ask_for_capacity();
  }
}

void Path::on_capacity(bool changed) {
  if (stopped_) {
    owner_.on_path_idle(*this);
  } else if (changed && !verifier_.identifying() && state_ == PathState::up) {
    verify("its capacity has changed");
  }
}

void Path::identify() {
  if (verifier_.identify()) {
    checker_.pause();
  }
}

void Path::on_identified(Result<LogicalUnitIdentity> identity) {
  not_ready_ = !identity && identity.error().code == ErrorCode::unavailable;
  if (!identity) {
    access_.forget_change();
    verifier_.set_identity(Identity::unknown);
    set_state(PathState::down, identity.error().message,
              identity.error().code == ErrorCode::not_found ? CheckerFinding::disconnected
                                                            : CheckerFinding::other);
    look_later();
    return;
  }
  serial_ = identity->serial;
  if (Result<void> same = owner_.check_identity(*this, *identity); !same) {
    verifier_.set_identity(Identity::unknown);
    set_state(PathState::quarantined, same.error().message);
  } else {
    verifier_.set_identity(Identity::known);
    note_access(identity->access);
    set_state_of(identity->access);
  }
  look_later();
}

void Path::refresh_access() {
  if (!may_ask()) {
    return;
  }
  if (verifier_.identifying() || reading_access()) {  // either tells it
    verifier_.start_over();
    return;
  }
  verifier_.read_access(false);
}

void Path::follow_access() {
  const std::uint64_t successes = requests_ - failures_ - load_.requests;
  const bool serves = std::exchange(successes_followed_, successes) != successes;
  if (reading_access()) {
    return;
  }
  if (!serves || state_ != PathState::up) {
    refresh_access();
  } else if (may_ask() && !verifier_.identifying() && logical_unit_.tells_access()) {
    verifier_.read_access(true);
  }
}

void Path::on_access(Result<LogicalUnitIdentity> identity) {
  if (state_ == PathState::quarantined) {
    return;
  }
  if (!identity) {
    // Of a path in use, the requests and the checker say what that means. A change of its access
    // state that ends in another error is over, and the path is one that does not work.
    if (access_.changing()) {
      access_.forget_change();
      set_state(PathState::down, identity.error().message);
      look_later();
    }
    return;
  }
  note_access(identity->access);
  if (!PathAccess::serves(identity->access)) {
    set_state_of(identity->access);
    look_later();
  } else if (state_ == PathState::ghost || access_.changing()) {
    // Capacity could not be asked for while the LUN was not served here: all of it anew. A path
    // that an error has failed is the checker's.
    access_.forget_change();
    identify();
    set_state(PathState::pending, "being identified again");
  }
}

void Path::note_access(const LogicalUnitAccess& access) {
  access_.note(access);
  owner_.on_path_access(*this);
}

void Path::set_state_of(const LogicalUnitAccess& access) {
  PathAccess::Verdict verdict = access_.judge(access, reactor_.now());
  set_state(verdict.state, std::move(verdict.why), verdict.finding);
}

void Path::on_suspect() noexcept {
  log_.warning("path {} of LUN {} is silent with requests outstanding", portal_name_, lun_);
  owner_.on_suspect(*this);
}

void Path::on_key_refused(const char* why) noexcept {
  log_.warning(
      "path {} cannot register its reservation_key ({}); lost writes are fenced without it",
      portal_name_, why);
}

void Path::on_key_kept(const char* why) noexcept {
  log_.warning("the reservation_key of path {} stays registered at the target: {}", portal_name_,
               why);
}

std::optional<TimePoint> Path::marginal_until() const {
  return marginal_.marginal(reactor_.now()) ? marginal_.until() : std::nullopt;
}

void Path::note_marginal(void (MarginalPath::*event)(TimePoint, const MarginalPathOptions&)) {
  const bool before = marginal_until().has_value();
  const TimePoint now = reactor_.now();
  (marginal_.*event)(now, marginal_options_);
  if (const auto until = marginal_until(); until && !before) {
    log_.warning("path {} fails again and again, it is a last resort for {} s", portal_name_,
                 std::chrono::duration_cast<std::chrono::seconds>(*until - now).count());
  }
}

void Path::look_later() {
  if (may_ask() && !verifier_.identifying()) {
    checker_.look_later(
        !(state_ == PathState::down || state_ == PathState::ghost || access_.changing()));
  }
}

void Path::on_unanswered(std::string why, bool silent) {
  access_.forget_change();
  verifier_.set_identity(Identity::unknown);
  set_state(PathState::down, std::move(why),
            silent ? CheckerFinding::timeout : CheckerFinding::other);
  look_later();
}

void Path::on_look_due() noexcept {
  if (session_.state() != SessionState::logged_in || verifier_.identifying()) {
    return;
  }
  if (state_ == PathState::ghost || access_.changing()) {
    if (state_ == PathState::pending && access_.change_overdue(reactor_.now())) {
      set_state(PathState::down, "the target port does not say that its access state has changed");
    }
    refresh_access();
    look_later();
  } else {
    checker_.check();
  }
}

void Path::on_check_overdue(bool again) noexcept {
  if (again) {
    session_.drop(Error{ErrorCode::timed_out, "the logical unit does not answer for too long"});
  } else if (state_ == PathState::up) {
    set_state(PathState::down, fmt::format("{} is not answered", checker_.question()),
              CheckerFinding::timeout);
  }
}

void Path::on_checker_idle() noexcept {
  owner_.on_path_idle(*this);
}

void Path::on_checked(ErrorClass outcome, bool changed) noexcept {
  if (verifier_.identifying()) {
    return;  // that decides
  }
  const PathVerdict verdict = rule_for(outcome).path;
  if (outcome == ErrorClass::success || outcome == ErrorClass::reservation_conflict) {
    // As for multipathd, a conflict shows that the path works.
    if (state_ == PathState::down) {
      identify();
      set_state(PathState::pending, "being identified again");
    } else if (changed) {
      refresh_access();
    }
  } else if (concerns_access(outcome)) {
    refresh_access();
  } else if ((verdict == PathVerdict::fail && state_ != PathState::quarantined) ||
             state_ == PathState::down) {
    set_state(PathState::down, to_string(outcome), finding_of(outcome));
  }
  look_later();
}

void Path::set_state(PathState state, std::string why, CheckerFinding finding) {
  last_error_ = std::move(why);
  finding_ = finding;
  if (finding == CheckerFinding::disconnected) {
    verifier_.set_identity(Identity::unknown);  // what is there next may be another LUN
  }
  if (state == state_) {
    return;
  }
  was_up_ = state == PathState::up || (state == PathState::pending && was_up_);
  state_ = state;
  checker_.reset_interval();
  if (state == PathState::up) {
    log_.info("path {} of LUN {} is up", portal_name_, lun_);
  } else if (state != PathState::pending && !stopped_) {
    log_.warning("path {} of LUN {} is {}: {}", portal_name_, lun_, to_string(state), last_error());
  }
  owner_.on_path_changed(*this);
}

}  // namespace iscsi_blkback
