#include "multipath/fencing/lun_command.h"

#include <fmt/format.h>

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

FencePaths LunCommand::look() const {
  FencePaths known;
  known.one_target = owner_.is_one_target();
  for (const Path* path : paths_) {
    known.paths.push_back(look_at(*path));
  }
  for (const Path* path : paths_.all()) {
    if (paths_.is_leaving(*path)) {
      known.paths.push_back(look_at(*path));
    }
  }
  return known;
}

FencePath LunCommand::look_at(const Path& path) const {
  Session& session = path.session();
  return {
      .index = path.index(),
      .up = PathSet::has(paths_.up(), path),
      .answering = PathSet::has(paths_.answering(), path),
      .logged_in = session.state() == SessionState::logged_in,
      .identifying = path.identifying(),
      .busy = path.in_flight() != 0 || !path.idle(),
      .allowed = preempts_ ? path.key().registered() : session.may_reset(encode_lun(path.lun())),
      .key = path.key().registering() ? std::nullopt : path.key().nexus(),
      .session = &session.options(),
      .nexus = login_nexus(session),
      .login_epoch = session.login_epoch(),
      .space = sessions_.nexus_space(session)};
}

// A path that comes back while the preemption of it is outstanding takes no requests and registers
// nothing until that has ended, or until release_path(): what the preemption ends later still is
// found after command_timeout.
bool LunCommand::choose_path(TimePoint harmless_at) {
  if (!preempts_) {
    const auto carrier = carrier_of_reset(look(), unfenced_, harmless_at);
    carrier_ = carrier ? &paths_[*carrier] : nullptr;
    return carrier.has_value();
  }
  const auto preemption = choose_preemption(look(), unfenced_, harmless_at);
  if (preemption) {
    carrier_ = &paths_[preemption->carrier];
    lost_ = &paths_[preemption->lost];
  }
  return preemption.has_value();
}

LunCommand::Ready LunCommand::ready() const {
  return ready_for_reset(look(), carrier_->index(), activator_.busy());
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
    return done && unfenced_.remove_if([&, known = look()](const UnfencedWrite& write) {
      return fenced_by_reset(known, carrier_->index(), write, harmless_at);
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
