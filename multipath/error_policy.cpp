#include "multipath/error_policy.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

ErrorClass classify_not_ready(std::uint8_t asc, std::uint8_t ascq) {
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
    case 0x2a09:  // capacity data has changed
    case 0x3f03:  // inquiry data has changed
    case 0x3f0e:  // reported LUNs data has changed
      return ErrorClass::identity_attention;
    default:
      // 29/xx, power on and resets: the LUN behind it may have been set up anew.
      return asc == 0x29 ? ErrorClass::identity_attention : ErrorClass::unit_attention;
  }
}

// All of the data was transferred, and it was all that the target had to transfer.
bool whole(const ScsiTask& task) {
  return task.transferred_bytes == task.data_length_bytes && !task.overflow;
}

ErrorClass classify_sense(const ScsiTask& task) {
  const SenseData& sense = task.sense;
  if (!sense.valid) {
    return ErrorClass::unusable_sense;
  }
  if (sense.deferred) {
    return ErrorClass::deferred_error;
  }
  switch (sense.key) {
    case SenseKey::no_sense:
      return ErrorClass::unusable_sense;
    case SenseKey::recovered_error:
      return whole(task) ? ErrorClass::success : ErrorClass::short_transfer;
    case SenseKey::not_ready:
      return classify_not_ready(sense.asc, sense.ascq);
    case SenseKey::medium_error:
      return sense.asc == 0x11 || sense.asc == 0x13 || sense.asc == 0x14
                 ? ErrorClass::medium_unrecovered
                 : ErrorClass::medium_other;
    case SenseKey::hardware_error:
      return ErrorClass::hardware_error;
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

ErrorClass classify_status(const ScsiTask& task) {
  switch (task.status) {
    case ScsiStatus::good:
    case ScsiStatus::condition_met:
      return whole(task) ? ErrorClass::success : ErrorClass::short_transfer;
    case ScsiStatus::check_condition:
      return classify_sense(task);
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

Duration brief_delay(std::uint16_t attempt, std::uint64_t random) {
  using std::chrono::milliseconds;
  const Duration full = std::min<Duration>(
      milliseconds(10) * (1 << std::min<std::uint16_t>(attempt, 7)), milliseconds(1000));
  // Half of it fixed, half random, so that requests refused together do not return together.
  return full / 2 + Duration(static_cast<Duration::rep>(
                        random % static_cast<std::uint64_t>(full.count() / 2 + 1)));
}

}  // namespace

ErrorClass classify(const ScsiTask& task) {
  switch (task.outcome) {
    case TaskOutcome::completed:
      return classify_status(task);
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

ErrorRule rule_for(ErrorClass error) {
  using enum PathVerdict;
  constexpr std::uint16_t unlimited = kUnlimitedRetries;
  // {path, retries here, then elsewhere, delay, answer when they are used up}
  switch (error) {
    case ErrorClass::success:
      return {keep, 0, 0, RetryDelay::none, IoStatus::ok};

    // The session says itself when it is down, and a path of it is failed by that.
    case ErrorClass::connection_lost:
    case ErrorClass::not_sent:
      return {keep, 0, unlimited, RetryDelay::none, IoStatus::no_path};

    // The target has confirmed that it is gone: free to go anywhere, without a fence. A LUN on
    // which command after command is stuck is no good path.
    case ErrorClass::command_stuck:
      return {keep, 0, 5, RetryDelay::none, IoStatus::no_path};

    case ErrorClass::target_failure:
      return {keep, 1, 4, RetryDelay::brief, IoStatus::target_error};
    case ErrorClass::short_transfer:
      return {keep, 1, 0, RetryDelay::none, IoStatus::target_error};

    // A busy target is not an error of the path; after two seconds another path is worth a try,
    // after two minutes this one is none.
    case ErrorClass::busy:
      return {keep, 8, 112, RetryDelay::brief, IoStatus::no_path};
    // The path's queue limit goes down with each (see Path), so that this ends by itself.
    case ErrorClass::task_set_full:
      return {keep, 8, 112, RetryDelay::brief, IoStatus::no_path};
    case ErrorClass::reservation_conflict:
      return {keep, 0, 0, RetryDelay::none, IoStatus::reservation_conflict};
    case ErrorClass::task_aborted:  // another initiator has reset the LUN
      return {keep, 5, 5, RetryDelay::attention, IoStatus::target_error};
    case ErrorClass::aca_active:
      return {keep, 2, 3, RetryDelay::brief, IoStatus::target_error};
    case ErrorClass::unknown_status:
      return {keep, 1, 1, RetryDelay::none, IoStatus::target_error};
    case ErrorClass::unusable_sense:
      return {keep, 1, 2, RetryDelay::brief, IoStatus::target_error};
    case ErrorClass::deferred_error:
      return {keep, 5, 5, RetryDelay::attention, IoStatus::target_error};

    case ErrorClass::becoming_ready:
    case ErrorClass::format_in_progress:
      return {keep, 0, 60, RetryDelay::pause, IoStatus::no_path};
    case ErrorClass::access_transition:
      return {keep, 0, 120, RetryDelay::pause, IoStatus::no_path};
    case ErrorClass::access_state:
    case ErrorClass::not_ready:
    case ErrorClass::lun_missing:
      return {fail, 0, unlimited, RetryDelay::none, IoStatus::no_path};

    case ErrorClass::medium_unrecovered:
      return {keep, 1, 1, RetryDelay::none, IoStatus::medium_error};
    case ErrorClass::medium_other:
      return {keep, 2, 1, RetryDelay::none, IoStatus::medium_error};
    case ErrorClass::hardware_error:  // may be one controller's
      return {keep, 0, 1, RetryDelay::none, IoStatus::target_error};

    case ErrorClass::command_unsupported:
      return {keep, 0, 0, RetryDelay::none, IoStatus::not_supported};
    case ErrorClass::out_of_range:
      return {keep, 0, 0, RetryDelay::none, IoStatus::out_of_range};
    case ErrorClass::illegal_request:
      return {keep, 0, 0, RetryDelay::none, IoStatus::target_error};

    case ErrorClass::unit_attention:
    case ErrorClass::access_changed:
    case ErrorClass::space_attention:
      return {keep, 30, 30, RetryDelay::attention, IoStatus::target_error};
    case ErrorClass::identity_attention:
      return {verify, 0, 60, RetryDelay::attention, IoStatus::target_error};

    case ErrorClass::write_protected:
    case ErrorClass::data_protect:
      return {keep, 0, 0, RetryDelay::none, IoStatus::write_protected};
    case ErrorClass::no_space:
      return {keep, 0, 0, RetryDelay::none, IoStatus::no_space};

    case ErrorClass::duration_limit:
      return {keep, 0, 0, RetryDelay::none, IoStatus::target_error};
    case ErrorClass::aborted_command:
      return {keep, 2, 3, RetryDelay::brief, IoStatus::target_error};
    case ErrorClass::refused:
      return {keep, 0, 0, RetryDelay::none, IoStatus::target_error};
  }
  return {};
}

bool concerns_access(ErrorClass error) {
  return error == ErrorClass::access_changed || error == ErrorClass::access_state ||
         error == ErrorClass::access_transition;
}

bool concerns_path(ErrorClass error) {
  return error == ErrorClass::command_stuck || error == ErrorClass::target_failure ||
         error == ErrorClass::short_transfer || error == ErrorClass::unusable_sense ||
         error == ErrorClass::hardware_error || error == ErrorClass::aborted_command;
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
    case ErrorClass::aborted_command:
      return "aborted command";
    case ErrorClass::refused:
      return "refused";
  }
  return "unknown";
}

RetryState::Step RetryState::next(ErrorClass error, const ErrorRule& rule) {
  if (error != last_) {
    last_ = error;
    count_ = 0;
  }
  if (rule.retries_elsewhere == kUnlimitedRetries) {
    count_ = static_cast<std::uint16_t>(std::min(count_ + 1, kMaxRetries + 0));
    return Step::elsewhere;
  }
  if (count_ >= rule.retries_here + rule.retries_elsewhere || bounded_total_ >= kMaxRetries) {
    return Step::answer;
  }
  ++bounded_total_;
  ++count_;
  return count_ <= rule.retries_here ? Step::here : Step::elsewhere;
}

Duration RetryState::delay(RetryDelay kind, std::uint64_t random) const {
  constexpr std::uint16_t kImmediateAttentions = 4;
  // next() has counted the error already: count_ is 1 for the first.
  const auto attempt = static_cast<std::uint16_t>(count_ > 0 ? count_ - 1 : 0);
  switch (kind) {
    case RetryDelay::none:
      return Duration::zero();
    case RetryDelay::brief:
      return brief_delay(attempt, random);
    case RetryDelay::attention:
      return attempt < kImmediateAttentions
                 ? Duration::zero()
                 : brief_delay(static_cast<std::uint16_t>(attempt - kImmediateAttentions), random);
    case RetryDelay::pause:
      return std::chrono::milliseconds(500) +
             std::chrono::microseconds(static_cast<std::int64_t>(random % 500000));
  }
  return Duration::zero();
}

}  // namespace iscsi_blkback
