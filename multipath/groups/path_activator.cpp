#include "multipath/groups/path_activator.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace iscsi_blkback {
namespace {

// How long a disk that does not know its LUN yet waits for a path that needs no activation.
constexpr std::chrono::seconds kGhostDelay{5};
// So long after a ghost path that is wanted has failed to become active, it is tried again.
constexpr std::chrono::seconds kRepeatActivation{10};

}  // namespace

PathActivator::PathActivator(Reactor& reactor, std::chrono::milliseconds answer_time,
                             const PathSet& paths, Ghosts& ghosts, GroupController& groups,
                             DiskSteps& steps, DiskLog& log)
    : reactor_(reactor),
      answer_time_(answer_time),
      paths_(paths),
      ghosts_(ghosts),
      groups_(groups),
      steps_(steps),
      log_(log),
      timer_(
          reactor, [](void* self) noexcept { static_cast<PathActivator*>(self)->on_timer(); },
          this),
      answer_timer_(
          reactor, [](void* self) noexcept { static_cast<PathActivator*>(self)->look(); }, this) {}

bool PathActivator::concerns(const Path& path) const {
  return PathSet::has(paths_.ghost(), path) &&
         (activating_ == path.index() ||
          (!known_ && !suspended_ && PathSet::has(activatable(), path)));
}

void PathActivator::activate(std::uint32_t group) {
  const PathMask candidates = groups_.groups().groups()[group].members & activatable();
  if (activating_ || candidates == 0 || closed_ || suspended_) {
    return;
  }
  const PathMask first_choice = candidates & ~ghosts_.awaiting_answer();
  activating_ =
      static_cast<std::uint32_t>(std::countr_zero(first_choice != 0 ? first_choice : candidates));
  tries_ = 0;
  const Path& path = paths_[*activating_];
  log_.info("asking the array to serve LUN {} through {}", path.lun(), path.portal_name());
  try_activation();
}

void PathActivator::try_activation() {
  ++tries_;
  ghosts_.activate(*activating_);
  timer_.start_after(answer_time_);
}

void PathActivator::on_done(const Path& path, PathActivation::Outcome outcome) {
  if (closed_) {
    return;
  }
  const bool given_up = activating_ != path.index();  // while its answer was awaited
  if (outcome == PathActivation::Outcome::done) {
    ghosts_.refresh_access(~PathMask{0});  // what the array makes of it, each finds out by itself
  }
  if (given_up) {
    steps_.due(DiskStep::activate);
    return;
  }
  switch (outcome) {
    case PathActivation::Outcome::done:
    case PathActivation::Outcome::retry:
      timer_.start_after(groups_.policies().pg_init_delay);
      return;
    case PathActivation::Outcome::failed:
    case PathActivation::Outcome::lost:
      give_up();
      return;
  }
}

void PathActivator::on_timer() {
  if (!activating_) {
    ghost_delay_over_ = true;
    bypassed_ = 0;
    choose_anew();
  } else if ((ghosts_.tellable() & path_bit(*activating_)) == 0 ||
             tries_ > groups_.policies().pg_init_retries) {
    give_up();  // it does not answer, has told meanwhile that it cannot be told, or was told enough
  } else {
    try_activation();
  }
}

void PathActivator::give_up() {
  const Path& path = paths_[*activating_];
  log_.warning("the array does not serve LUN {} through {}", path.lun(), path.portal_name());
  bypassed_ |= path_bit(*activating_);
  end();
  choose_anew();
}

void PathActivator::choose_anew() {
  reconsiders_ = true;
  steps_.due(DiskStep::activate);
}

void PathActivator::end() {
  activating_.reset();
  timer_.stop();
}

void PathActivator::withdraw() {
  if (activating_) {
    end();
  }
  ghosts_.withdraw();
}

void PathActivator::suspend() {
  suspended_ = true;
  withdraw();
}

void PathActivator::resume() {
  suspended_ = false;
  choose_anew();
}

void PathActivator::close() {
  closed_ = true;
  timer_.stop();
  answer_timer_.stop();
  withdraw();
}

void PathActivator::on_all_lost() {
  ghosts_.refresh_access(paths_.ghost());
}

void PathActivator::on_state(std::uint32_t index, PathState state) {
  if (state != PathState::ghost) {
    bypassed_ &= ~path_bit(index);
  }
  if (activating_ == index && state != PathState::ghost && state != PathState::pending) {
    end();
  }
  activate_if_needed();
}

void PathActivator::forget(const Path& path) {
  bypassed_ &= ~path_bit(path.index());
  if (activating_ == path.index()) {
    end();
  }
}

void PathActivator::want_failback() {
  for_failback_ = paths_.up() != 0;
  steps_.due(DiskStep::activate);
}

void PathActivator::look() {
  if (closed_) {
    return;
  }
  activate_if_needed();
  if (std::exchange(reconsiders_, false)) {
    groups_.reconsider();
  }
  if (for_failback_) {
    activate_for_failback();
  }
  steps_.due(DiskStep::follow_outage);
}

// Another path is up, so that there is no hurry; and the better side may be about to show that it
// is active already.
void PathActivator::activate_for_failback() {
  if (answer_is_near()) {
    await_answer();
    return;
  }
  for_failback_ = false;
  const std::uint32_t best = groups_.wanted_group();
  if (paths_.up() != 0 && best != groups_.groups().current() && !groups_.is_up(best)) {
    activate(best);  // used when it is up
  }
}

void PathActivator::activate_if_needed() {
  if (paths_.up() == 0 && paths_.ghost() != 0 && !activating_ && !suspended_) {
    activate_what_is_left();
  }
  if (!activating_ && !timer_.armed() && bypassed_is_wanted()) {
    timer_.start_after(kRepeatActivation);
  }
}

// With many paths there is always one of which the access state is being read, so that these are
// not waited for again and again.
bool PathActivator::answer_is_near() const {
  const bool reads_have_time =
      !answer_awaited_since_ || reactor_.now() < *answer_awaited_since_ + Path::kAnswerTime;
  return ghosts_.answer_is_near(reads_have_time);
}

void PathActivator::await_answer() {
  if (!answer_timer_.armed()) {
    answer_awaited_since_ = answer_awaited_since_.value_or(reactor_.now());
    answer_timer_.start_after(Path::kAnswerTime / 4);
  }
}

void PathActivator::activate_what_is_left() {
  if (answer_is_near()) {
    await_answer();
    return;
  }
  // At attach, the active side may only be late: what takes the LUN from it waits a little.
  if (!known_ && !ghost_delay_over_) {
    if (!timer_.armed()) {
      timer_.start_after(kGhostDelay);
    }
    return;
  }
  activate(groups_.wanted_group());
}

// Whether a path that has refused would be used, or fallen back to, if it did not.
bool PathActivator::bypassed_is_wanted() const {
  const PathMask refused = paths_.ghost() & bypassed_;
  if (refused == 0 || paths_.up() == 0) {
    return refused != 0;
  }
  const Failback::Kind failback = groups_.policies().failback.kind;
  const auto groups = groups_.groups().groups();
  const std::uint32_t current = groups_.groups().current();
  const bool returns = failback == Failback::Kind::immediate || failback == Failback::Kind::after ||
                       groups[current].marginal;
  return returns &&
         std::any_of(groups.begin(), groups.begin() + current, [refused](const PathGroup& better) {
           return (better.members & refused) != 0;
         });
}

}  // namespace iscsi_blkback
