#include "initiator/scsi/error_class.h"

namespace iscsi_blkback {
namespace {

ErrorClass classify_not_ready(std::uint8_t asc, std::uint8_t ascq) {
  if (asc == 0x08) {
    return ErrorClass::communication_failure;
  }
  if (asc != 0x04) {
    return ErrorClass::not_ready;
  }
  switch (ascq) {
    case 0x01:  // is in process of becoming ready
    case 0x05:  // rebuild in progress
    case 0x06:  // recalculation in progress
    case 0x07:  // operation in progress
    case 0x08:  // long write in progress
    case 0x09:  // self-test in progress
    case 0x11:  // notify (enable spinup) required
    case 0x14:  // space allocation in progress
    case 0x1a:  // start stop unit command in progress
    case 0x1b:  // sanitize in progress
    case 0x1d:  // configuration in progress
    case 0xa1:  // vendor-specific, RDAC: quiescence in progress or achieved
      return ErrorClass::becoming_ready;
    case 0x04:
      return ErrorClass::format_in_progress;
    case 0x0a:  // asymmetric access state transition
      return ErrorClass::access_transition;
    case 0x0b:  // target port in standby state
    case 0x0c:  // target port in unavailable state
    case 0x12:  // offline
      return ErrorClass::access_state;
    default:
      return ErrorClass::not_ready;
  }
}

ErrorClass classify_illegal_request(std::uint16_t code) {
  switch (code) {
    case 0x2000:
      return ErrorClass::command_unsupported;
    case 0x2100:
      return ErrorClass::out_of_range;
    case 0x2500:
      return ErrorClass::lun_missing;
    case 0x9401:  // vendor-specific, RDAC: the other controller owns the LUN
      return ErrorClass::access_state;
    default:
      return ErrorClass::illegal_request;
  }
}

ErrorClass classify_unit_attention(std::uint8_t asc, std::uint16_t code) {
  switch (code) {
    case 0x040a:
      return ErrorClass::access_transition;
    case 0x2a06:  // asymmetric access state changed
    case 0x2a07:  // implicit asymmetric access state transition failed
      return ErrorClass::access_changed;
    case 0x3807:
      return ErrorClass::space_attention;
    case 0x2800:  // not ready to ready change, medium may have changed
    case 0x2a00:  // parameters changed
    case 0x2a01:  // mode parameters changed: the write cache may have been switched on
    case 0x2a09:  // capacity data has changed
    case 0x3f00:  // target operating conditions have changed
    case 0x3f01:  // microcode has been changed
    case 0x3f02:  // changed operating definition
    case 0x3f03:  // inquiry data has changed
    case 0x3f0e:  // reported LUNs data has changed
      return ErrorClass::identity_attention;
    default:
      // 29/xx, power on and resets: the LUN behind it may have been set up anew.
      return asc == 0x29 ? ErrorClass::identity_attention : ErrorClass::unit_attention;
  }
}

// The target has done what it was asked for; whether with all of the data remains to be seen. Of an
// answer whose length the target knows better it may also have had more than we have asked for.
ErrorClass done(const ScsiTask& task, Transfer transfer) {
  const bool all = task.transferred_bytes == task.data_length_bytes && !task.overflow;
  return all || transfer == Transfer::at_most ? ErrorClass::success : ErrorClass::short_transfer;
}

// PERIPHERAL DEVICE WRITE FAULT, WRITE ERROR, NO DEFECT SPARE LOCATION AVAILABLE.
bool is_write_fault(std::uint8_t asc) {
  return asc == 0x03 || asc == 0x0c || asc == 0x32;
}

ErrorClass classify_sense(const ScsiTask& task, Transfer transfer) {
  const SenseData& sense = task.sense;
  if (!sense.valid) {
    return ErrorClass::unusable_sense;
  }
  if (sense.deferred) {
    return ErrorClass::deferred_error;
  }
  switch (sense.key) {
    case SenseKey::no_sense:  // nothing to complain of (SPC-4 4.5.6)
    case SenseKey::recovered_error:
      return done(task, transfer);
    case SenseKey::not_ready:
      return classify_not_ready(sense.asc, sense.ascq);
    case SenseKey::medium_error:
      return sense.asc == 0x11 || sense.asc == 0x13 || sense.asc == 0x14
                 ? ErrorClass::medium_unrecovered
                 : ErrorClass::medium_other;
    case SenseKey::hardware_error:
      return is_write_fault(sense.asc) ? ErrorClass::medium_other : ErrorClass::hardware_error;
    case SenseKey::illegal_request:
      return classify_illegal_request(sense.code());
    case SenseKey::unit_attention:
      return classify_unit_attention(sense.asc, sense.code());
    case SenseKey::data_protect:
      if (sense.code() == 0x2707) {
        return ErrorClass::no_space;
      }
      return sense.asc == 0x27 && sense.ascq <= 0x02 ? ErrorClass::write_protected
                                                     : ErrorClass::data_protect;
    case SenseKey::aborted_command:
      if (sense.asc == 0x10) {
        return ErrorClass::protection_error;
      }
      return sense.asc == 0x2e && sense.ascq >= 0x01 && sense.ascq <= 0x03
                 ? ErrorClass::duration_limit
                 : ErrorClass::aborted_command;
    case SenseKey::blank_check:
    case SenseKey::vendor_specific:
    case SenseKey::copy_aborted:
    case SenseKey::reserved:
    case SenseKey::volume_overflow:
    case SenseKey::miscompare:
    case SenseKey::completed:
      return ErrorClass::refused;
  }
  return ErrorClass::unusable_sense;
}

ErrorClass classify_status(const ScsiTask& task, Transfer transfer) {
  switch (task.status) {
    case ScsiStatus::good:
    case ScsiStatus::condition_met:
      return done(task, transfer);
    case ScsiStatus::check_condition:
      return classify_sense(task, transfer);
    case ScsiStatus::busy:
      return ErrorClass::busy;
    case ScsiStatus::reservation_conflict:
      return ErrorClass::reservation_conflict;
    case ScsiStatus::task_set_full:
      return ErrorClass::task_set_full;
    case ScsiStatus::aca_active:
      return ErrorClass::aca_active;
    case ScsiStatus::task_aborted:
      return ErrorClass::task_aborted;
  }
  return ErrorClass::unknown_status;  // the byte is the target's and may be anything
}

}  // namespace

ErrorClass classify(const ScsiTask& task, Transfer transfer) {
  switch (task.outcome) {
    case TaskOutcome::completed:
      return classify_status(task, transfer);
    case TaskOutcome::aborted:
      return ErrorClass::command_stuck;
    case TaskOutcome::target_failure:
      return ErrorClass::target_failure;
    case TaskOutcome::not_sent:
      return ErrorClass::not_sent;
    case TaskOutcome::connection_lost:
      return ErrorClass::connection_lost;
  }
  return ErrorClass::connection_lost;  // the worst assumption: a write may still be executed
}

bool tells_loss(const SenseData& sense) {
  return sense.valid && sense.deferred && sense.key != SenseKey::no_sense &&
         sense.key != SenseKey::recovered_error && sense.key != SenseKey::unit_attention;
}

bool tells_loss_at_flush(ErrorClass error) {
  return error == ErrorClass::medium_unrecovered || error == ErrorClass::medium_other ||
         error == ErrorClass::communication_failure;
}

bool refuses_form(const ScsiTask& task) {
  switch (classify(task)) {
    case ErrorClass::command_unsupported:
    case ErrorClass::out_of_range:
      return true;
    case ErrorClass::illegal_request:
      return task.sense.asc == 0x24;  // invalid field in CDB
    default:
      return false;
  }
}

bool refuses_form_of_transfer(const ScsiTask& task) {
  return refuses_form(task) && classify(task) != ErrorClass::out_of_range;
}

bool refuses_discard(const ScsiTask& task) {
  return refuses_form_of_transfer(task) ||
         (classify(task) == ErrorClass::illegal_request && task.sense.asc == 0x26);
}

bool refuses_flush(ErrorClass error) {
  return error == ErrorClass::command_unsupported || error == ErrorClass::out_of_range ||
         error == ErrorClass::illegal_request || error == ErrorClass::write_protected ||
         error == ErrorClass::data_protect;
}

const char* to_string(ErrorClass error) {
  switch (error) {
    case ErrorClass::success:
      return "success";
    case ErrorClass::connection_lost:
      return "connection lost";
    case ErrorClass::not_sent:
      return "not sent";
    case ErrorClass::command_stuck:
      return "command not answered in time and aborted";
    case ErrorClass::target_failure:
      return "target failure";
    case ErrorClass::short_transfer:
      return "short transfer";
    case ErrorClass::busy:
      return "busy";
    case ErrorClass::task_set_full:
      return "task set full";
    case ErrorClass::reservation_conflict:
      return "reservation conflict";
    case ErrorClass::task_aborted:
      return "task aborted";
    case ErrorClass::aca_active:
      return "ACA active";
    case ErrorClass::unknown_status:
      return "unknown status";
    case ErrorClass::unusable_sense:
      return "check condition without usable sense data";
    case ErrorClass::deferred_error:
      return "error of an earlier command";
    case ErrorClass::becoming_ready:
      return "becoming ready";
    case ErrorClass::format_in_progress:
      return "format in progress";
    case ErrorClass::access_transition:
      return "asymmetric access state transition";
    case ErrorClass::access_state:
      return "not served here now: target port in standby or unavailable state, or LUN owned by "
             "another controller";
    case ErrorClass::access_changed:
      return "unit attention: asymmetric access state changed";
    case ErrorClass::communication_failure:
      return "the target cannot reach what is behind the logical unit";
    case ErrorClass::not_ready:
      return "not ready";
    case ErrorClass::medium_unrecovered:
      return "unrecovered medium error";
    case ErrorClass::medium_other:
      return "medium error";
    case ErrorClass::hardware_error:
      return "hardware error";
    case ErrorClass::command_unsupported:
      return "command not supported";
    case ErrorClass::out_of_range:
      return "address out of range";
    case ErrorClass::lun_missing:
      return "the target has no such logical unit, or does not show it to this initiator";
    case ErrorClass::illegal_request:
      return "illegal request";
    case ErrorClass::unit_attention:
      return "unit attention";
    case ErrorClass::space_attention:
      return "unit attention: thin provisioning soft threshold reached";
    case ErrorClass::identity_attention:
      return "unit attention: the logical unit may have changed";
    case ErrorClass::write_protected:
      return "write protected";
    case ErrorClass::no_space:
      return "no space";
    case ErrorClass::data_protect:
      return "data protect";
    case ErrorClass::duration_limit:
      return "command duration limit";
    case ErrorClass::protection_error:
      return "check of the protection information failed";
    case ErrorClass::aborted_command:
      return "aborted command";
    case ErrorClass::refused:
      return "refused";
  }
  return "unknown";
}

}  // namespace iscsi_blkback
