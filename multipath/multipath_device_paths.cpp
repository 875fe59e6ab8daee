// What paths and fences tell a MultipathDevice: who is up, no path, end of a hold, closing.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// How long the first good path waits for those that are just being asked, too.
constexpr std::chrono::milliseconds kFirstAnswersTime{100};

}  // namespace

void MultipathDevice::Impl::on_path_session_up(Path& path) noexcept {
  paths_.forget_silence(path);
  fence_.on_session_up(path);
}

// Paths that are removed, or the device, may be waiting for what has just happened.
void MultipathDevice::Impl::look_at_those_that_end() {
  if (closing_) {
    check_closed_.schedule();
  } else if (paths_.leaving() != 0) {
    finish_removals_.schedule();
  }
}

void MultipathDevice::Impl::on_loss_told(Path& path, const std::string& sense) noexcept {
  log_.error(
      "by portal {} the target says that a write has failed which it had acknowledged "
      "before (sense {}): data of this disk is lost at the target; the next flush fails",
      path.portal_name(), sense);
  queue_.note_loss();
}

void MultipathDevice::Impl::on_space_low(Path& /*path*/) noexcept {
  log_.warning(
      "the LUN's thin provisioning has come to its soft threshold: the array is running "
      "out of space");
}

void MultipathDevice::Impl::on_path_changed(Path& path) noexcept {
  if (paths_.is_leaving(path)) {
    return;
  }
  const Session& session = path.session();
  if (path.state() == PathState::up) {
    log_.info("path {} of LUN {} is up", path.portal_name(), path.lun());
  } else if (path.state() != PathState::pending) {
    log_.warning("path {} of LUN {} is {}: {}", path.portal_name(), path.lun(),
                 to_string(path.state()), path.last_error());
  }

  const bool had_path = paths_.up() != 0;
  // A target that asks for a logout (EqualLogic does, to balance its ports) has not failed, nor has
  // a controller that gives the LUN to another one.
  const bool failed = PathSet::has(paths_.up(), path) && path.state() == PathState::down &&
                      path.finding() != CheckerFinding::access_state &&
                      session.state() != SessionState::in_logout;
  const bool usable = paths_.note_state(path);
  notify_.schedule();
  if (closing_) {
    return;
  }
  if (failed && !paths_.forget_silence(path)) {
    groups_.note_failure(path);
  }
  if (usable) {
    fence_.enroll(path);
  } else if (path.state() == PathState::quarantined) {
    if (!capacity_timer_.armed()) {
      start_capacity_timer();  // the disk may not be ready before it leads there
    }
    for (Path* other : paths_) {
      if (other->state() == PathState::up) {
        other->look_at_capacity();  // what is wrong with this one may be wrong with all
      }
    }
  }
  if (had_path && paths_.up() == 0) {
    // The array may have made one of them the active side by now, which is not to be undone.
    for (Path* other : paths_) {
      if (other->state() == PathState::ghost) {
        other->refresh_access();
      }
    }
  }
  groups_.follow_closely();
  groups_.on_state(path);
  activator_.on_state(path);
  queue_.hedger().look_soon();
  grow_if_all_agree(&path);
  note_paths_up(had_path);
}

NoPathTimer::Paths MultipathDevice::Impl::paths_now() const {
  NoPathTimer::Paths now;
  now.any_up = paths_.up() != 0;
  for (const Path* path : paths_) {
    const bool keeps_ending = path->session().keeps_ending();
    now.any_keeps_ending = now.any_keeps_ending || keeps_ending;
    now.any_reliable = now.any_reliable || (PathSet::has(paths_.up(), *path) && !keeps_ending);
  }
  return now;
}

// had_path: before this change.
void MultipathDevice::Impl::note_paths_up(bool had_path) {
  no_path_timer_.on_paths(paths_now(), had_path);
  if (paths_.up() != 0) {
    queue_.pump_soon();
  }
  fail_if_failing();
}

// no_path_retry is over, the guest runs, and no path is just being looked at (a unit attention on
// the only path is not an outage, nor are controllers that change their roles).
bool MultipathDevice::Impl::failing() const {
  return no_path_timer_.expired() && paths_.up() == 0 && !suspended() && !activator_.busy() &&
         !activator_.answer_is_near() &&
         std::none_of(paths_.begin(), paths_.end(), [](const Path* path) {
           return path->state() == PathState::pending && path->identifying();
         });
}

void MultipathDevice::Impl::fail_if_failing() {
  if (failing()) {
    queue_.fail_waiting();
  } else if (no_path_timer_.expired() && paths_.up() == 0 && activator_.answer_is_near()) {
    activator_.await_answer();
  }
}

void MultipathDevice::Impl::set_no_path_retry(std::optional<NoPathRetry> wait) {
  groups_.set_no_path_retry(wait);
  apply_policies();
}

void MultipathDevice::Impl::on_path_has_lasted() noexcept {
  queue_.pump_soon();
}

void MultipathDevice::Impl::on_no_path_retry_over() noexcept {
  log_.warning("no path came back within no_path_retry; requests fail now");
  fail_if_failing();
  notify_.schedule();
}

void MultipathDevice::Impl::change_policies(const PathPolicySettings& changes) {
  groups_.overrule(changes);
  apply_policies();
  queue_.pump_soon();
}

void MultipathDevice::Impl::apply_policies() {
  const PathPolicies before = groups_.decide(ready() ? &disk_.lun() : nullptr);
  if (groups_.policies().no_path_retry != before.no_path_retry) {
    no_path_timer_.set_wait(groups_.policies().no_path_retry);
  }
  groups_.update_priorities();
  if (!closing_) {
    fence_.look_for_trials_soon();
    groups_.follow(before);
    notify_.schedule();
  }
}

void MultipathDevice::Impl::on_path_access(Path& path) noexcept {
  groups_.on_access(path);
  activator_.look_soon();
}

void MultipathDevice::Impl::on_activation_done(Path& path,
                                               PathActivation::Outcome outcome) noexcept {
  if (closing_) {
    check_closed_.schedule();
    return;
  }
  look_at_those_that_end();
  activator_.on_done(path, outcome);
}

void MultipathDevice::Impl::on_latency_measured(Path& path,
                                                const LatencyEstimate& measured) noexcept {
  look_at_those_that_end();
  groups_.on_latency_measured(path, measured);
}

void MultipathDevice::Impl::on_suspect(Path& path) noexcept {
  paths_.note_suspect(path, true);
  // What has silenced it may have silenced others that have nothing to do: before a write goes
  // there, that shall be known.
  for (Path* other : paths_.all()) {
    other->probe_silence();
  }
  queue_.hedger().look_soon();
  queue_.pump_soon();
  notify_.schedule();
}

void MultipathDevice::Impl::on_suspicion_over(Path& path) noexcept {
  if (path.session().state() == SessionState::logged_in) {
    paths_.forget_silence(path);  // else it goes down now, which is the same failure
  }
  paths_.note_suspect(path, false);
  queue_.hedger().look_soon();
  queue_.pump_soon();
  notify_.schedule();
}

void MultipathDevice::Impl::on_silence_goes_on(Path& path) noexcept {
  queue_.hedger().drop_if_stuck(path);
  // Where no other path answers, it is the target.
  if (PathSet::has(paths_.suspect(), path) && paths_.answering() != 0 && !paths_.is_leaving(path) &&
      !closing_ && paths_.count_silence(path)) {
    groups_.note_failure(path);
  }
}

void MultipathDevice::Impl::on_path_idle(Path& /*path*/) noexcept {
  look_at_those_that_end();
}

void MultipathDevice::Impl::on_withdrawn() noexcept {
  nothing_at_fencer_ = true;
  for (const std::unique_ptr<Removal>& removal : removals_) {
    removal->nothing_at_fencer = removal->withdrawn;
  }
  look_at_those_that_end();
}

void MultipathDevice::Impl::close(bool wait_for_fences, void (*on_closed)(void* owner) noexcept,
                                  void* owner) {
  ISCSI_BLKBACK_ASSERT(!closing_);
  closing_ = true;
  wait_for_fences_ = wait_for_fences;
  fence_.close();
  on_closed_ = on_closed;
  on_closed_owner_ = owner;
  no_path_timer_.close();
  groups_.close();
  capacity_timer_.stop();
  first_answers_timer_.stop();
  turn_.close();
  queue_.close();
  withdraw_unsent();
  activator_.close();
  for (Path* path : paths_) {
    path->stop();
  }
  check_closed_.schedule();
}

void MultipathDevice::Impl::check_closed() {
  if (!closing_ || on_closed_ == nullptr || !queue_.idle() ||
      !std::all_of(paths_.begin(), paths_.end(), [](const Path* path) { return path->idle(); }) ||
      !std::all_of(removals_.begin(), removals_.end(),
                   [](const auto& removal) { return removal->idle(); }) ||
      fence_.must_be_awaited() ||
      std::any_of(paths_.all().begin(), paths_.all().end(),
                  [](const Path* path) {
                    return (path->key().registering() || path->has_own_commands());
                  }) ||
      !turn_.idle() || (wait_for_fences_ && !fence_.empty())) {
    return;
  }
  bool keys_given_back = true;
  for (Path* path : paths_.all()) {
    keys_given_back = fence_.key_given_back(*path) && keys_given_back;
  }
  if (!keys_given_back) {
    return;
  }
  if (!withdrawn_) {
    withdrawn_ = true;
    turn_.leave();
    nothing_at_fencer_ = fence_.withdraw();
  }
  if (nothing_at_fencer_) {
    notify_.cancel();
    auto* on_closed = std::exchange(on_closed_, nullptr);
    on_closed(on_closed_owner_);  // may delete the device
  }
}

void MultipathDevice::Impl::notify() {
  if (ready() && !ready_told_) {
    const bool others_answer_soon = std::any_of(paths_.begin(), paths_.end(), [](const Path* path) {
      return path->session().state() == SessionState::in_login ||
             (path->state() == PathState::pending && path->identifying());
    });
    if (others_answer_soon && disk_.conflict().empty() && !closing_) {
      if (!first_answers_timer_.armed()) {
        first_answers_timer_.start_after(kFirstAnswersTime);
      }
    } else {
      tell_ready();
      return;
    }
  }
  tell_changes();
}

void MultipathDevice::Impl::tell_ready() {
  first_answers_timer_.stop();
  if (turn_.waits() && !closing_) {
    tell_changes();  // on_turn_changed() has it told again
    return;
  }
  if (!disk_.conflict().empty() && !closing_) {
    observer_.on_conflict(device_, disk_.conflict());
  }
  if (closing_) {
    return;
  }
  ready_told_ = true;
  disk_.set_in_use();
  (void)disk_.take_grown();
  start_capacity_timer();
  observer_.on_ready(device_);
  tell_changes();
}

void MultipathDevice::Impl::tell_changes() {
  if (ready_told_ && disk_.take_grown()) {
    observer_.on_grown(device_);
  }
  observer_.on_paths_changed(device_);
}

}  // namespace iscsi_blkback
