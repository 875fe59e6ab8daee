// Fences of lost writes by a command of the logical unit itself, through a path that works. They
// are for what the next login of the lost session, or of a fence session through a sibling portal
// (SessionFencer), does not reach: those act within one portal group only.
//
//   LOGICAL UNIT RESET  (SAM-5 6.3.3 and 7.7, RFC 7143 11.5.1) where the LUN is exclusive and no
//                       other disk at it says otherwise (Session::may_reset): ends the
//                       commands of every nexus, so that our own are let finish first; requests
//                       pause for that long. No other host may use the LUN: at the source of a
//                       migration another one does, so that a suspended disk is not reset.
//                       The guest's requests wait kDrainTime and kResetPause at most, see below.
//   PREEMPT AND ABORT   (SPC-4 5.13) where paths have registered keys: ends the commands of the
//                       nexus whose key it names, and of no other.
//
// Why not at once. Both end what the device server has received. Bytes of the lost connection that
// are still in the network, or in a socket that a stalled target port has not read yet, become
// commands after that, and RFC 7143 knows no time after which they do not. A login with the same
// ISID has the target close the old connection first, and needs no waiting; these need it:
//  1. A write is recorded as lost when its connection's socket has been closed by a reset: nothing
//     of it is sent, or sent again, from then on.
//  2. fence_settle_time later, what was in the network has arrived or is lost, and the target's
//     port has read it or has seen the reset. The command is sent not before, and it vouches only
//     for writes that were lost that long before it was sent.
// What a reset costs the guest. It ends all commands of the LUN, those of other sessions without an
// answer, so that none of ours shall be there when it is executed:
//  1. New requests wait until those outstanding are answered: kDrainTime at most, else it is not
//     sent, and tried again after a while, twice as long each time.
//  2. It is sent, and new requests wait for its answer: kResetPause at most. Targets execute a reset
//     when they take it from the connection, and answer it when what it ends has come to its end,
//     which can take as long as the late write is stuck (LIO, tgt). So what is sent after that
//     pause is safe from it at those, and not held up by what may take for ever.
//  3. The answer is waited for all the same, for as long as its connection lives, without another
//     reset; that it does not come is held against nobody. When it comes after the pause, the
//     target may be one that executes a reset late, and what was sent since may have ended with it,
//     silently. Nothing of that was executed, or all that is left of it is data that is to be
//     written again: what is not answered in an eighth of command_timeout is aborted, and goes
//     again when the target confirms that it is gone (session_recovery.cpp).
//
// quiesce_time, which makes no use of the target, must be longer than the target's own timeout for
// connections; the settling is over far sooner. And since it costs other requests something, a
// fence is sent only when somebody waits for it.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "initiator/scsi/lun_address.h"
#include "multipath/multipath_device_impl.h"

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

void MultipathDevice::Impl::register_key(Path& path) {
  if (!paths_.is_leaving(path)) {
    path.key().enroll();
  }
}

// Another disk of the same LUN over the same session has the same registration: the last one takes
// it back.
bool MultipathDevice::Impl::key_given_back(Path& path) {
  PathKey& key = path.key();
  if (!key.ends()) {
    if (fencer_->other_needs_key(path.session(), path.lun(), *this)) {
      key.leave();
    } else {
      key.give_back();
    }
  }
  return !key.giving_back();
}

bool MultipathDevice::Impl::needs_key(const Session& session, std::uint16_t lun) const noexcept {
  return options_.reservation_key != 0 &&
         std::any_of(paths_.all().begin(), paths_.all().end(), [&](const Path* path) {
           return &path->session() == &session && path->lun() == lun && !path->key().ends();
         });
}

// Perhaps after we have registered anew, and then that is what it has taken.
void MultipathDevice::Impl::on_key_taken_back(const Session& session, std::uint16_t lun) noexcept {
  for (Path* path : paths_) {
    if (&path->session() == &session && path->lun() == lun && !closing_) {
      path->key().doubt();
      register_key(*path);
    }
  }
}

bool MultipathDevice::Impl::may_reset_lun() const noexcept {
  return options_.exclusive_luns && !suspended() &&
         std::none_of(paths_.begin(), paths_.end(), [this](const Path* path) {
           return fencer_->other_refuses_reset(
               disk_.lun().wwid, path->session().options().target_name, path->lun(), *this);
         });
}

bool MultipathDevice::Impl::refuses_reset(const std::string& wwid, const std::string& target_name,
                                          std::uint16_t lun) const noexcept {
  if (options_.exclusive_luns && !suspended()) {
    return false;
  }
  // The other disk may have been told it when the LUN had fewer names, or more.
  return (!wwid.empty() && (wwid == disk_.lun().wwid || is_called(names(), wwid))) ||
         std::any_of(paths_.all().begin(), paths_.all().end(), [&](const Path* path) {
           return path->lun() == lun && path->session().options().target_name == target_name;
         });
}

// By the same portal of the same network, by one of the same nexus space (a trial has shown that of
// both logins), or because the operator says that it is one system.
bool MultipathDevice::Impl::reaches(const Path& carrier, const UnfencedWrite& write) const {
  if (portal_group_fences() == PortalGroupFences::yes) {
    return true;
  }
  if (!paths_.contains(write.path)) {
    return false;  // of several paths
  }
  const Session& lost = paths_[write.path].session();
  const Session& session = carrier.session();
  return lost.options().target_name == session.options().target_name &&
         ((lost.options().interface_binding == session.options().interface_binding &&
           same_nexus(write.place, login_place(session), false)) ||
          (write.login_epoch == lost.login_epoch() && fencer_->one_nexus_space(lost, session)));
}

bool MultipathDevice::Impl::may_carry_lun_fence(const Path& path) const {
  if (!PathSet::has(paths_.answering(), path) ||
      path.session().state() != SessionState::logged_in || path.identifying()) {
    return false;
  }
  return options_.reservation_key != 0 ? path.key().registered()
                                       : path.session().may_reset(encode_lun(path.lun()));
}

// One that reaches something which has settled.
Path* MultipathDevice::Impl::path_for_reset(TimePoint until) const {
  const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
    return may_carry_lun_fence(*path) && unfenced_.any_of([&](const UnfencedWrite& write) {
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
std::optional<MultipathDevice::Impl::Preemption> MultipathDevice::Impl::preemption(
    TimePoint until) const {
  for (Path* lost : paths_.all()) {
    const std::uint32_t index = lost->index();
    const std::optional<LoginPlace>& place = lost->key().place();
    if (lost->session().state() == SessionState::logged_in || !place || lost->key().registering() ||
        !unfenced_.all_until(index, *place, until)) {
      continue;
    }
    const auto carrier = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
      return may_carry_lun_fence(*path) && !unfenced_.any_of([&](const UnfencedWrite& write) {
        return write.path == index && !reaches(*path, write);
      });
    });
    if (carrier != paths_.end()) {
      return Preemption{*carrier, index};
    }
  }
  return std::nullopt;
}

// What is lost at this time or before has settled.
TimePoint MultipathDevice::Impl::settled_harmless_at(TimePoint now) const {
  return now - options_.fence_settle_time + options_.quiesce_time;
}

void MultipathDevice::Impl::start_lun_fence_timer() {
  const bool possible = options_.reservation_key != 0 || options_.exclusive_luns;
  if (!possible || unfenced_.empty() || lun_fence_.under_way() || lun_fence_.timer.armed() ||
      options_.fence_settle_time >= options_.quiesce_time) {
    return;
  }
  // A moment later: what was lost with that one, one after the other, has settled, too, then.
  lun_fence_.timer.start_at(
      std::max(reactor_.now(), unfenced_.next_expiry() - options_.quiesce_time +
                                   options_.fence_settle_time + kLunFenceLook));
}

void MultipathDevice::Impl::on_lun_fence_timer() {
  if (lun_fence_.outstanding) {
    if (std::exchange(lun_fence_.pausing, false)) {
      lun_fence_.late = true;
      pump_.schedule();
    }
    release_preempted();
    return;
  }
  if (lun_fence_.pausing) {
    look_whether_drained();
    return;
  }
  if (unfenced_.empty() || withdrawn_) {
    lun_fence_.failures = 0;
    return;
  }
  const TimePoint now = reactor_.now();
  const TimePoint until = settled_harmless_at(now);
  const auto settled = [until](const UnfencedWrite& write) { return write.harmless_at <= until; };
  if (!unfenced_.any_of(settled)) {
    start_lun_fence_timer();
    return;
  }
  const bool preempts = options_.reservation_key != 0;
  const bool somebody_waits = held_count_ != 0 || withheld_count_ != 0;
  const bool wanted = somebody_waits || (closing_ && wait_for_fences_);
  const std::optional<Preemption> found =
      !wanted    ? std::nullopt
      : preempts ? preemption(until)
                 : std::optional(Preemption{.carrier = path_for_reset(until)});
  if (!found || found->carrier == nullptr) {
    lun_fence_.timer.start_after(kLunFenceLook);
    return;
  }
  lun_fence_.path = found->carrier->index();
  if (preempts) {
    preempt(*found->carrier, found->lost);
  } else {
    lun_fence_.pausing = true;
    lun_fence_.give_up_at = now + kDrainTime;
    look_whether_drained();
  }
}

void MultipathDevice::Impl::look_whether_drained() {
  Path& path = paths_[lun_fence_.path];
  const TimePoint now = reactor_.now();
  if (!PathSet::has(paths_.up(), path) || now >= lun_fence_.give_up_at) {
    end_lun_fence(false);
    return;
  }
  const bool busy =
      activator_.busy() ||
      std::any_of(paths_.all().begin(), paths_.all().end(), [](const Path* other) {
        return other->session().state() == SessionState::logged_in &&
               (other->in_flight() != 0 || !other->idle() || other->identifying());
      });
  if (busy) {
    lun_fence_.timer.start_after(kDrainLook);
    return;
  }
  lun_fence_.sent_at = now;
  lun_fence_.outstanding = true;
  lun_fence_.function.function = TaskFunction::logical_unit_reset;
  lun_fence_.function.lun = encode_lun(path.lun());
  lun_fence_.function.patient = true;
  lun_fence_.function.owner = this;
  lun_fence_.function.on_complete = [](TaskManagement& function) noexcept {
    auto& impl = *static_cast<Impl*>(function.owner);
    impl.on_lun_fence_answered(function.outcome == FunctionOutcome::complete,
                               to_string(function.outcome));
  };
  lun_fence_.timer.start_after(kResetPause);
  path.session().manage(lun_fence_.function);
}

void MultipathDevice::Impl::preempt(Path& path, std::uint32_t lost) {
  lun_fence_.lost = lost;
  lun_fence_.lost_place = paths_[lost].key().place().value();
  // Nobody reserves with these keys, so that the type is ignored (SPC-4 5.13.11.2.4); Linux's LIO
  // wants a valid one nevertheless.
  path.logical_unit().prepare_reserve_out(
      lun_fence_.task, ReserveOutAction::preempt_and_abort,
      ReservationType::write_exclusive_registrants_only,
      {.key = path.key().value(), .service_action_key = paths_[lost].key().value()},
      lun_fence_.buffer);
  lun_fence_.task.owner = this;
  lun_fence_.task.on_complete = [](ScsiTask& task) noexcept {
    auto& impl = *static_cast<Impl*>(task.owner);
    const ErrorClass error = classify(task);
    impl.on_lun_fence_answered(error == ErrorClass::success, to_string(error));
  };
  lun_fence_.sent_at = reactor_.now();
  lun_fence_.outstanding = true;
  paths_.hold_back(paths_[lost]);
  lun_fence_.timer.start_after(kPreemptionHold);
  path.session().submit(lun_fence_.task);
}

// The path that was lost may be used again, if it is back.
void MultipathDevice::Impl::release_preempted() {
  Path* const path = paths_.release_held_back();
  if (path != nullptr && path->state() == PathState::up) {
    on_path_changed(*path);
  }
}

void MultipathDevice::Impl::on_lun_fence_answered(bool done, const char* how) {
  lun_fence_.outstanding = false;
  if (lun_fence_.late) {
    doubt_requests();
  }
  const bool preempted = options_.reservation_key != 0;
  const char* const name = preempted ? "PREEMPT AND ABORT" : "LOGICAL UNIT RESET";
  const std::string& portal = paths_[lun_fence_.path].portal_name();
  if (!done) {
    log_.warning("{} through {} does not fence lost writes: {}", name, portal, how);
    if (preempted) {  // a target that has lost its keys refuses, too
      paths_[lun_fence_.path].key().doubt();
      register_key(paths_[lun_fence_.path]);
      release_preempted();
    }
    end_lun_fence(false);
    return;
  }
  log_.info("lost writes are fenced by {} through {}", name, portal);
  const TimePoint until = settled_harmless_at(lun_fence_.sent_at);
  bool removed = false;
  if (preempted) {
    removed = unfenced_.fence_until(lun_fence_.lost, lun_fence_.lost_place, until);
    paths_[lun_fence_.lost].key().gone_at_target();
    release_preempted();
    register_key(paths_[lun_fence_.lost]);
  } else {
    const Path& carrier = paths_[lun_fence_.path];
    removed = unfenced_.remove_if([&](const UnfencedWrite& write) {
      return write.harmless_at <= until && reaches(carrier, write);
    });
  }
  end_lun_fence(true);
  if (removed) {
    after_fencing();
  }
}

void MultipathDevice::Impl::end_lun_fence(bool done) {
  if (std::exchange(lun_fence_.pausing, false)) {
    pump_.schedule();
  }
  lun_fence_.timer.stop();
  if (done) {
    lun_fence_.failures = 0;
    start_lun_fence_timer();
  } else {
    lun_fence_.timer.start_after(kLunFenceRetry *
                                 (1 << std::min(lun_fence_.failures++, kMaxRetryDoublings)));
  }
  look_at_those_that_end();
}

// What the reset has ended of what was sent after it, its session does not know.
void MultipathDevice::Impl::doubt_requests() {
  lun_fence_.late = false;
  for (Path* path : paths_.all()) {
    if (path->session().state() == SessionState::logged_in) {
      path->session().doubt_commands(path->logical_unit().lun());
    }
  }
}

void MultipathDevice::Impl::give_up_reset() {
  if (options_.reservation_key == 0 && std::exchange(lun_fence_.outstanding, false)) {
    paths_[lun_fence_.path].session().abandon(lun_fence_.function);
    doubt_requests();
    end_lun_fence(false);
  }
}

}  // namespace iscsi_blkback
