#include "multipath/path/path_activation.h"

#include "base/result.h"
#include "initiator/scsi/error_class.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint8_t kExplicit = 0x02;  // TPGS
// Unit attentions that one activation clears before it is tried again later.
constexpr std::uint32_t kMaxAttentions = 5;

bool speaks_alua(const LogicalUnitAccess& access) {
  return (access.tpgs & kExplicit) != 0 && access.group() != nullptr;
}

PathActivation::Outcome outcome_of(const ScsiTask& task) {
  using Outcome = PathActivation::Outcome;
  constexpr std::uint16_t kCommandLockContention = 0x9136;  // vendor-specific, RDAC
  if (task.outcome == TaskOutcome::completed && task.status == ScsiStatus::check_condition &&
      task.sense.valid && task.sense.key == SenseKey::illegal_request &&
      task.sense.code() == kCommandLockContention) {
    return Outcome::retry;
  }
  switch (classify(task)) {
    case ErrorClass::success:
      return Outcome::done;
    case ErrorClass::connection_lost:
    case ErrorClass::not_sent:
      return Outcome::lost;
    case ErrorClass::command_stuck:
    case ErrorClass::busy:
    case ErrorClass::task_set_full:
    case ErrorClass::task_aborted:
    case ErrorClass::aborted_command:
    case ErrorClass::unusable_sense:
    case ErrorClass::becoming_ready:
    case ErrorClass::access_transition:
    case ErrorClass::unit_attention:
    case ErrorClass::access_changed:
    case ErrorClass::identity_attention:
      return Outcome::retry;
    default:
      return Outcome::failed;
  }
}

}  // namespace

PathActivation::PathActivation(LogicalUnit& logical_unit, Owner& owner)
    : logical_unit_(logical_unit), owner_(owner) {}

PathActivation::~PathActivation() {
  ISCSI_BLKBACK_ASSERT(!outstanding());
}

bool PathActivation::possible(const LogicalUnitAccess& access) {
  return speaks_alua(access) || (access.tpgs == 0 && access.rdac.has_value());
}

void PathActivation::start(const LogicalUnitAccess& access) {
  ISCSI_BLKBACK_ASSERT(!outstanding() && possible(access));
  outstanding_ = true;
  withdrawn_ = false;
  access_ = access;
  attentions_ = 0;
  send();
}

void PathActivation::send() {
  if (speaks_alua(access_)) {
    const SetTargetPortGroup wanted{access_.group()->tag, AccessState::active_optimized};
    logical_unit_.prepare_set_target_port_groups(task_, std::span(&wanted, 1), buffer_);
  } else {
    logical_unit_.prepare_rdac_take_over(task_, access_.rdac_max_lun, buffer_);
  }
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<PathActivation*>(task.owner)->on_complete();
  };
  logical_unit_.session().submit(task_);
}

void PathActivation::withdraw() {
  withdrawn_ = true;
  logical_unit_.session().withdraw_unsent(
      [](const ScsiTask& task, const void* ours) noexcept { return &task == ours; }, &task_);
}

void PathActivation::on_complete() {
  const bool attention = task_.outcome == TaskOutcome::completed &&
                         task_.status == ScsiStatus::check_condition && task_.sense.valid &&
                         task_.sense.key == SenseKey::unit_attention;
  if (attention && !withdrawn_ && ++attentions_ <= kMaxAttentions) {
    send();
    return;
  }
  outstanding_ = false;
  owner_.on_activation_done(outcome_of(task_));
}

}  // namespace iscsi_blkback
