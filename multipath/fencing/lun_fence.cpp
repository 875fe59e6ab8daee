#include "multipath/fencing/lun_fence.h"

#include <algorithm>
#include <utility>

#include "initiator/scsi/lun_address.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

// While nobody waits, or no path could carry the fence.
constexpr Duration kLunFenceLook = milliseconds(100);
// Our own commands may take so long to finish before a reset; how often that is looked at. For how
// long requests wait for its answer.
constexpr Duration kDrainTime = milliseconds(200);
constexpr Duration kDrainLook = milliseconds(1);
constexpr Duration kResetPause = milliseconds(200);
// Between two tries; twice as long each time.
constexpr Duration kLunFenceRetry = milliseconds(1000);
constexpr std::uint32_t kMaxRetryDoublings = 4;
// A path that is back is kept out of use by a preemption of it for so long at most.
constexpr Duration kPreemptionHold = milliseconds(5000);

}  // namespace

LunFence::LunFence(Reactor& reactor, const Options& options, PathSet& paths,
                   UnfencedWrites& unfenced, const NexusFencer& sessions,
                   const PathActivator& activator, DiskSteps& steps, DiskLog& log, Owner& owner)
    : reactor_(reactor),
      options_(options),
      paths_(paths),
      unfenced_(unfenced),
      sessions_(sessions),
      activator_(activator),
      steps_(steps),
      log_(log),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<LunFence*>(self)->on_timer(); }, this) {}

bool LunFence::needs(const Path& path) const {
  return (under_way() && carrier_ == &path) || (must_be_awaited() && lost_ == &path);
}

void LunFence::forget_carrier(const Path& path) {
  if (carrier_ == &path) {
    give_up_reset();
  }
}

void LunFence::suspend() {
  if (pausing_ && !outstanding_) {
    end(true);
  }
}

void LunFence::stop() {
  stopped_ = true;
  give_up_reset();
  timer_.stop();
}

void LunFence::register_key(Path& path) {
  if (!paths_.is_leaving(path)) {
    path.key().register_key();
  }
}

// By the same portal of the same network, by one of the same nexus space (a trial has shown that of
// both logins), or because the operator says that it is one system.
bool LunFence::reaches(const Path& carrier, const UnfencedWrite& write) const {
  if (owner_.is_one_target()) {
    return true;
  }
  if (!paths_.contains(write.path)) {
    return false;  // of several paths
  }
  const Session& lost = paths_[write.path].session();
  const Session& session = carrier.session();
  return lost.options().target_name == session.options().target_name &&
         ((lost.options().interface_binding == session.options().interface_binding &&
           same_nexus(write.nexus, login_nexus(session), false)) ||
          (write.login_epoch == lost.login_epoch() && sessions_.one_nexus_space(lost, session)));
}

bool LunFence::may_carry(const Path& path) const {
  if (!PathSet::has(paths_.answering(), path) ||
      path.session().state() != SessionState::logged_in || path.identifying()) {
    return false;
  }
  return options_.preempts ? path.key().registered()
                           : path.session().may_reset(encode_lun(path.lun()));
}

// One that reaches something which has settled.
Path* LunFence::path_for_reset(TimePoint until) const {
  const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
    return may_carry(*path) && unfenced_.any_of([&](const UnfencedWrite& write) {
      return write.harmless_at <= until && reaches(*path, write);
    });
  });
  return found == paths_.end() ? nullptr : *found;
}

// A path, of those that are leaving, too, whose session is down and whose lost writes have settled,
// in the nexus that has its key: all of them, for the key is gone after that. The commands of one
// that is back would be ended, too, and its login has fenced what it had lost. And a path that
// reaches them. One that comes back
// while the preemption is outstanding takes no requests and registers nothing until that has ended,
// or for kPreemptionHold: what the preemption ends later still is found after command_timeout.
std::optional<LunFence::Preemption> LunFence::preemption(TimePoint until) const {
  for (Path* lost : paths_.all()) {
    const std::uint32_t index = lost->index();
    const std::optional<LoginNexus>& nexus = lost->key().nexus();
    if (lost->session().state() == SessionState::logged_in || !nexus || lost->key().registering() ||
        !unfenced_.all_until(index, *nexus, until)) {
      continue;
    }
    const auto carrier = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
      return may_carry(*path) && !unfenced_.any_of([&](const UnfencedWrite& write) {
        return write.path == index && !reaches(*path, write);
      });
    });
    if (carrier != paths_.end()) {
      return Preemption{*carrier, lost};
    }
  }
  return std::nullopt;
}

// What is lost at this time or before has settled.
TimePoint LunFence::settled_harmless_at(TimePoint now) const {
  return now - options_.settle_time + options_.quiesce_time;
}

void LunFence::start() {
  const bool possible = options_.preempts || options_.resets;
  if (!possible || unfenced_.empty() || under_way() || timer_.armed() ||
      options_.settle_time >= options_.quiesce_time) {
    return;
  }
  // A moment later: what was lost with that one, one after the other, has settled, too, then.
  timer_.start_at(std::max(reactor_.now(), unfenced_.next_expiry() - options_.quiesce_time +
                                               options_.settle_time + kLunFenceLook));
}

void LunFence::on_timer() {
  if (outstanding_) {
    if (std::exchange(pausing_, false)) {
      late_ = true;
      steps_.due(DiskStep::pump);
    }
    release_preempted();
    return;
  }
  if (pausing_) {
    look_whether_drained();
    return;
  }
  if (unfenced_.empty() || stopped_) {
    failures_ = 0;
    return;
  }
  const TimePoint now = reactor_.now();
  const TimePoint until = settled_harmless_at(now);
  const auto settled = [until](const UnfencedWrite& write) { return write.harmless_at <= until; };
  if (!unfenced_.any_of(settled)) {
    start();
    return;
  }
  const std::optional<Preemption> found =
      !owner_.fence_is_wanted() ? std::nullopt
      : options_.preempts       ? preemption(until)
                                : std::optional(Preemption{.carrier = path_for_reset(until)});
  if (!found || found->carrier == nullptr) {
    timer_.start_after(kLunFenceLook);
    return;
  }
  carrier_ = found->carrier;
  if (options_.preempts) {
    preempt(*found->carrier, *found->lost);
  } else {
    pausing_ = true;
    give_up_at_ = now + kDrainTime;
    look_whether_drained();
  }
}

void LunFence::look_whether_drained() {
  Path& path = *carrier_;
  const TimePoint now = reactor_.now();
  if (!PathSet::has(paths_.up(), path) || now >= give_up_at_) {
    end(false);
    return;
  }
  const bool busy = activator_.busy() ||
                    std::any_of(paths_.all().begin(), paths_.all().end(), [](const Path* other) {
                      return other->session().state() == SessionState::logged_in &&
                             (other->in_flight() != 0 || !other->idle() || other->identifying());
                    });
  if (busy) {
    timer_.start_after(kDrainLook);
    return;
  }
  sent_at_ = now;
  outstanding_ = true;
  function_.function = TaskFunction::logical_unit_reset;
  function_.lun = encode_lun(path.lun());
  function_.no_deadline = true;
  function_.owner = this;
  function_.on_complete = [](TaskManagement& function) noexcept {
    static_cast<LunFence*>(function.owner)
        ->on_answered(function.outcome == FunctionOutcome::complete, to_string(function.outcome));
  };
  timer_.start_after(kResetPause);
  path.session().submit(function_);
}

void LunFence::preempt(Path& carrier, Path& lost) {
  lost_ = &lost;
  lost_nexus_ = lost.key().nexus().value();
  // Nobody reserves with these keys, so that the type is ignored (SPC-4 5.13.11.2.4); Linux's LIO
  // wants a valid one nevertheless.
  carrier.logical_unit().prepare_reserve_out(
      task_, ReserveOutAction::preempt_and_abort, ReservationType::write_exclusive_registrants_only,
      {.key = carrier.key().value(), .service_action_key = lost.key().value()}, buffer_);
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    const ErrorClass error = classify(task);
    static_cast<LunFence*>(task.owner)->on_answered(error == ErrorClass::success, to_string(error));
  };
  sent_at_ = reactor_.now();
  outstanding_ = true;
  paths_.hold_back(lost);
  timer_.start_after(kPreemptionHold);
  carrier.session().submit(task_);
}

// The path that was lost may be used again, if it is back.
void LunFence::release_preempted() {
  Path* const path = paths_.release_held_back();
  if (path != nullptr && path->state() == PathState::up) {
    owner_.on_path_released(*path);
  }
}

void LunFence::on_answered(bool done, const char* how) {
  outstanding_ = false;
  if (late_) {
    doubt_requests();
  }
  const bool preempted = options_.preempts;
  const char* const name = preempted ? "PREEMPT AND ABORT" : "LOGICAL UNIT RESET";
  const std::string& portal = carrier_->portal_name();
  if (!done) {
    log_.warning("{} through {} does not fence lost writes: {}", name, portal, how);
    if (preempted) {  // a target that has lost its keys refuses, too
      carrier_->key().invalidate();
      register_key(*carrier_);
      release_preempted();
    }
    end(false);
    return;
  }
  log_.info("lost writes are fenced by {} through {}", name, portal);
  const TimePoint until = settled_harmless_at(sent_at_);
  bool removed = false;
  if (preempted) {
    removed = unfenced_.fence_until(lost_->index(), lost_nexus_, until);
    lost_->key().gone_at_target();
    release_preempted();
    register_key(*lost_);
  } else {
    const Path& carrier = *carrier_;
    removed = unfenced_.remove_if([&](const UnfencedWrite& write) {
      return write.harmless_at <= until && reaches(carrier, write);
    });
  }
  end(true);
  if (removed) {
    owner_.on_lun_fenced();
  }
}

void LunFence::end(bool done) {
  if (std::exchange(pausing_, false)) {
    steps_.due(DiskStep::pump);
  }
  timer_.stop();
  if (done) {
    failures_ = 0;
    start();
  } else {
    timer_.start_after(kLunFenceRetry * (1 << std::min(failures_++, kMaxRetryDoublings)));
  }
  steps_.due_to_end();
}

// What the reset has ended of what was sent after it, its session does not know.
void LunFence::doubt_requests() {
  late_ = false;
  for (Path* path : paths_.all()) {
    if (path->session().state() == SessionState::logged_in) {
      path->session().hasten_timeout(path->logical_unit().lun());
    }
  }
}

void LunFence::give_up_reset() {
  if (!options_.preempts && std::exchange(outstanding_, false)) {
    carrier_->session().abandon(function_);
    doubt_requests();
    end(false);
  }
}

}  // namespace iscsi_blkback
