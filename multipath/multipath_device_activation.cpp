// Ghost paths of a MultipathDevice: the array is told to serve the LUN through one of them when no
// path is up any more, or when they are the better side and failback says so. Requests wait
// meanwhile.
#include <algorithm>
#include <bit>

#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// How long a disk that has not been ready yet waits for a path that needs no activation.
constexpr std::chrono::seconds kGhostDelay{5};
// So long after a ghost path that is wanted has failed to become active, it is tried again.
constexpr std::chrono::seconds kRepeatActivation{10};

}  // namespace

PathMask MultipathDevice::Impl::activatable() const {
  PathMask result = 0;
  for (Path* path : paths_) {
    const PathMask bit = path_bit(path->index());
    if ((paths_.ghost() & ~bypassed_ & bit) != 0 && !path->activating() && path->can_activate()) {
      result |= bit;
    }
  }
  return result;
}

// The best group that is up or can be made so; the current one when there is none.
std::uint32_t MultipathDevice::Impl::wanted_group() const {
  const PathMask usable = paths_.up() | activatable();
  for (std::uint32_t group = 0; group < groups_.groups().size(); ++group) {
    if ((groups_.groups()[group].members & usable) != 0) {
      return group;
    }
  }
  return groups_.current();
}

void MultipathDevice::Impl::activate(std::uint32_t group) {
  const PathMask candidates = groups_.groups()[group].members & activatable();
  if (activating_ || candidates == 0 || closing_ || suspended()) {
    return;
  }
  PathMask asked = 0;  // and no answer yet, so that another one is the better choice
  for (const Path* path : paths_) {
    asked |= path->awaits_answer() ? path_bit(path->index()) : 0;
  }
  const PathMask first_choice = candidates & ~asked;
  activating_ =
      static_cast<std::uint32_t>(std::countr_zero(first_choice != 0 ? first_choice : candidates));
  activation_tries_ = 0;
  Path& path = paths_[*activating_];
  log_.info("asking the array to serve LUN {} through {}", path.lun(), path.portal_name());
  try_activation();
}

void MultipathDevice::Impl::try_activation() {
  ++activation_tries_;
  // Between two tries the path may have told that it cannot be told any more.
  if (!paths_[*activating_].can_activate()) {
    give_activation_up();
    return;
  }
  paths_[*activating_].activate();
  // The session waits longer (command_timeout), but not the other ghosts and no_path_retry.
  activation_timer_.start_after(options_.checker_timeout);
}

void MultipathDevice::Impl::on_activation_done(Path& path,
                                               PathActivation::Outcome outcome) noexcept {
  if (closing_) {
    check_closed_.schedule();
    return;
  }
  look_at_those_that_end();
  const bool given_up = activating_ != path.index();  // while its answer was awaited
  if (outcome == PathActivation::Outcome::done) {
    // What the array makes of it, each path finds out by itself.
    for (Path* other : paths_) {
      other->refresh_access();
    }
  }
  if (given_up) {
    activate_if_needed();
    return;
  }
  switch (outcome) {
    case PathActivation::Outcome::done:
      activation_timer_.start_after(policies_.pg_init_delay);
      return;
    case PathActivation::Outcome::retry:
      activation_timer_.start_after(policies_.pg_init_delay);
      return;
    case PathActivation::Outcome::failed:
    case PathActivation::Outcome::lost:
      give_activation_up();
      return;
  }
}

void MultipathDevice::Impl::on_activation_timer() {
  if (!activating_) {
    ghost_delay_over_ = true;
    bypassed_ = 0;
    activate_if_needed();
    consider_failback(PathGroups::kNoPath);
  } else if (paths_[*activating_].activating() || activation_tries_ > policies_.pg_init_retries) {
    give_activation_up();
  } else {
    try_activation();
  }
}

void MultipathDevice::Impl::give_activation_up() {
  const Path& path = paths_[*activating_];
  log_.warning("the array does not serve LUN {} through {}", path.lun(), path.portal_name());
  bypassed_ |= path_bit(*activating_);
  end_activation();
  activate_if_needed();
  consider_failback(PathGroups::kNoPath);  // there may be another path to the better side
  fail_if_failing();
}

void MultipathDevice::Impl::end_activation() {
  activating_.reset();
  activation_timer_.stop();
}

// The guest is suspended, so that the LUN is the migration's destination's to take; on_resumed()
// begins anew. Or the disk is being closed.
void MultipathDevice::Impl::withdraw_activation() {
  if (activating_) {
    end_activation();
  }
  for (Path* path : paths_.all()) {
    path->withdraw_activation();
  }
}

void MultipathDevice::Impl::on_resumed() {
  if (closing_) {
    return;
  }
  activate_if_needed();
  consider_failback(PathGroups::kNoPath);
  fail_if_failing();
}

// A path has changed its state.
void MultipathDevice::Impl::activation_after(const Path& path) {
  const PathState state = path.state();
  if (state != PathState::ghost) {
    bypassed_ &= ~path_bit(path.index());
  }
  if (activating_ == path.index() && state != PathState::ghost && state != PathState::pending) {
    end_activation();
  }
  activate_if_needed();
}

// After all that a path's answer changes has changed.
void MultipathDevice::Impl::look_for_activation() {
  if (closing_) {
    return;
  }
  activate_if_needed();
  if (activation_for_failback_) {
    activate_for_failback();
  }
  fail_if_failing();
}

// Another path is up, so that there is no hurry; and the better side may be about to show that it
// is active already.
void MultipathDevice::Impl::activate_for_failback() {
  if (answer_is_near()) {
    await_answer();
    return;
  }
  activation_for_failback_ = false;
  const std::uint32_t best = wanted_group();
  if (paths_.up() != 0 && best != groups_.current() &&
      (groups_.groups()[best].members & paths_.up()) == 0) {
    activate(best);  // used when it is up
  }
}

void MultipathDevice::Impl::activate_if_needed() {
  if (paths_.up() == 0 && paths_.ghost() != 0 && !activating_ && !suspended()) {
    activate_what_is_left();
  }
  if (!activating_ && !activation_timer_.armed() && bypassed_is_wanted()) {
    activation_timer_.start_after(kRepeatActivation);
  }
}

// A path is just being asked: it may turn out to be the active side. With many paths there is
// always one of which the access state is being read, so that these are not waited for again and
// again.
bool MultipathDevice::Impl::answer_is_near() const {
  const bool reads_have_time =
      !answer_awaited_since_ || reactor_.now() < *answer_awaited_since_ + Path::kAnswerTime;
  return std::any_of(paths_.begin(), paths_.end(), [reads_have_time](const Path* path) {
    return path->answers_soon() || (reads_have_time && path->reading_access());
  });
}

void MultipathDevice::Impl::await_answer() {
  if (!answer_timer_.armed()) {
    answer_awaited_since_ = answer_awaited_since_.value_or(reactor_.now());
    answer_timer_.start_after(Path::kAnswerTime / 4);
  }
}

void MultipathDevice::Impl::on_answer_timer() {
  look_for_activation();
  if (!answer_timer_.armed()) {
    answer_awaited_since_.reset();
  }
}

void MultipathDevice::Impl::activate_what_is_left() {
  if (answer_is_near()) {
    await_answer();
    return;
  }
  // At attach, the active side may only be late: what takes the LUN from it waits a little.
  if (!ready() && !ghost_delay_over_) {
    if (!activation_timer_.armed()) {
      activation_timer_.start_after(kGhostDelay);
    }
    return;
  }
  activate(wanted_group());
}

// Whether a path that has refused would be used, or fallen back to, if it did not.
bool MultipathDevice::Impl::bypassed_is_wanted() const {
  const PathMask refused = paths_.ghost() & bypassed_;
  if (refused == 0 || paths_.up() == 0) {
    return refused != 0;
  }
  const auto groups = groups_.groups();
  const bool returns = policies_.failback.kind == Failback::Kind::immediate ||
                       policies_.failback.kind == Failback::Kind::after ||
                       groups[groups_.current()].marginal;
  return returns && std::any_of(groups.begin(), groups.begin() + groups_.current(),
                                [refused](const PathGroup& better) {
                                  return (better.members & refused) != 0;
                                });
}

}  // namespace iscsi_blkback
