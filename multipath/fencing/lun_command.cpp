#include "multipath/fencing/lun_command.h"

#include <fmt/format.h>

#include <algorithm>

#include "initiator/scsi/lun_address.h"

namespace iscsi_blkback {

LunCommand::LunCommand(bool preempts, PathSet& paths, UnfencedWrites& unfenced,
                       const NexusFencer& sessions, const PathActivator& activator, Owner& owner)
    : preempts_(preempts),
      paths_(paths),
      unfenced_(unfenced),
      sessions_(sessions),
      activator_(activator),
      owner_(owner) {}

void LunCommand::register_key(Path& path) {
  if (!paths_.is_leaving(path)) {
    path.key().register_key();
  }
}

bool LunCommand::choose_path(TimePoint harmless_at) {
  if (preempts_) {
    return choose_preemption(harmless_at);
  }
  carrier_ = path_for_reset(harmless_at);
  return carrier_ != nullptr;
}

// By the same portal of the same network, by one of the same nexus space (a trial has shown that of
// both logins), or because the operator says that it is one system.
bool LunCommand::reaches(const Path& carrier, const UnfencedWrite& write) const {
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

bool LunCommand::may_carry(const Path& path) const {
  if (!PathSet::has(paths_.answering(), path) ||
      path.session().state() != SessionState::logged_in || path.identifying()) {
    return false;
  }
  return preempts_ ? path.key().registered() : path.session().may_reset(encode_lun(path.lun()));
}

// One that reaches something which has settled.
Path* LunCommand::path_for_reset(TimePoint until) const {
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
// reaches them. One that comes back while the preemption is outstanding takes no requests and
// registers nothing until that has ended, or until release_path(): what the preemption ends later
// still is found after command_timeout.
bool LunCommand::choose_preemption(TimePoint until) {
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
      carrier_ = *carrier;
      lost_ = lost;
      return true;
    }
  }
  return false;
}

LunCommand::Ready LunCommand::ready() const {
  if (!PathSet::has(paths_.up(), *carrier_)) {
    return Ready::no_path;
  }
  const bool busy = activator_.busy() ||
                    std::any_of(paths_.all().begin(), paths_.all().end(), [](const Path* other) {
                      return other->session().state() == SessionState::logged_in &&
                             (other->in_flight() != 0 || !other->idle() || other->identifying());
                    });
  return busy ? Ready::busy : Ready::yes;
}

void LunCommand::send() {
  if (preempts_) {
    send_preemption();
  } else {
    send_reset();
  }
}

void LunCommand::send_reset() {
  function_.function = TaskFunction::logical_unit_reset;
  function_.lun = encode_lun(carrier_->lun());
  function_.no_deadline = true;
  function_.owner = this;
  function_.on_complete = [](TaskManagement& function) noexcept {
    static_cast<LunCommand*>(function.owner)
        ->owner_.on_answered(function.outcome == FunctionOutcome::complete,
                             to_string(function.outcome));
  };
  carrier_->session().submit(function_);
}

void LunCommand::send_preemption() {
  lost_nexus_ = lost_->key().nexus().value();
  // Nobody reserves with these keys, so that the type is ignored (SPC-4 5.13.11.2.4); Linux's LIO
  // wants a valid one nevertheless.
  carrier_->logical_unit().prepare_reserve_out(
      task_, ReserveOutAction::preempt_and_abort, ReservationType::write_exclusive_registrants_only,
      {.key = carrier_->key().value(), .service_action_key = lost_->key().value()}, buffer_);
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    const ErrorClass error = classify(task);
    static_cast<LunCommand*>(task.owner)
        ->owner_.on_answered(error == ErrorClass::success, to_string(error));
  };
  paths_.hold_back(*lost_);
  carrier_->session().submit(task_);
}

void LunCommand::abandon() {
  carrier_->session().abandon(function_);
}

bool LunCommand::take_answer(bool done, TimePoint harmless_at) {
  if (!preempts_) {
    return done && unfenced_.remove_if([&](const UnfencedWrite& write) {
      return write.harmless_at <= harmless_at && reaches(*carrier_, write);
    });
  }
  if (!done) {  // a target that has lost its keys refuses, too
    carrier_->key().invalidate();
    register_key(*carrier_);
    release_path();
    return false;
  }
  const bool removed = unfenced_.fence_until(lost_->index(), lost_nexus_, harmless_at);
  lost_->key().gone_at_target();
  release_path();
  register_key(*lost_);
  return removed;
}

// The path that was lost may be used again, if it is back.
void LunCommand::release_path() {
  Path* const path = paths_.release_held_back();
  if (path != nullptr && path->state() == PathState::up) {
    owner_.on_path_released(*path);
  }
}

void LunCommand::doubt_requests() {
  for (Path* path : paths_.all()) {
    if (path->session().state() == SessionState::logged_in) {
      path->session().hasten_timeout(path->logical_unit().lun());
    }
  }
}

std::string LunCommand::text() const {
  return fmt::format("{} through {}", preempts_ ? "PREEMPT AND ABORT" : "LOGICAL UNIT RESET",
                     carrier_->portal_name());
}

}  // namespace iscsi_blkback
