#include "multipath/path/error_policy.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

Duration brief_delay(std::uint16_t attempt, std::uint64_t random) {
  using std::chrono::milliseconds;
  const Duration full = std::min<Duration>(
      milliseconds(10) * (1 << std::min<std::uint16_t>(attempt, 7)), milliseconds(1000));
  // Half of it fixed, half random, so that requests refused together do not return together.
  return full / 2 + Duration(static_cast<Duration::rep>(
                        random % static_cast<std::uint64_t>(full.count() / 2 + 1)));
}

// "Not now": asked again here, then preferably elsewhere, until the time is over.
ErrorRule wait(Duration here, Duration in_all, RetryDelay delay, IoStatus answer,
               PathVerdict path = PathVerdict::keep) {
  ErrorRule rule;
  rule.path = path;
  rule.delay = delay;
  rule.answer = answer;
  rule.time_here = here;
  rule.time_in_all = in_all;
  return rule;
}

}  // namespace

ErrorRule rule_for(ErrorClass error) {
  using enum PathVerdict;
  using std::chrono::seconds;
  constexpr std::uint16_t unlimited = kUnlimitedRetries;
  // {path, retries here, then elsewhere, delay, answer when they are used up}
  // wait(time here, in all, delay, answer when it is over)
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
    // after two minutes this one is none. ABORTED COMMAND is how many targets say "busy" (a
    // failover inside, a volume being moved): Linux tries five times, which can be over in
    // milliseconds. TASK SET FULL ends by itself: the path's queue limit goes down with each (see
    // Path).
    case ErrorClass::busy:
    case ErrorClass::aborted_command:
    case ErrorClass::task_set_full:
      return wait(seconds(2), seconds(120), RetryDelay::brief, IoStatus::no_path);
    case ErrorClass::reservation_conflict:
      return {keep, 0, 0, RetryDelay::none, IoStatus::reservation_conflict};
    case ErrorClass::task_aborted:  // another initiator has reset the LUN
      return wait(seconds(2), seconds(30), RetryDelay::attention, IoStatus::target_error);
    case ErrorClass::aca_active:
      return wait(seconds(2), seconds(30), RetryDelay::brief, IoStatus::target_error);
    case ErrorClass::unknown_status:
      return {keep, 1, 1, RetryDelay::none, IoStatus::target_error};
    case ErrorClass::unusable_sense:
      return {keep, 1, 2, RetryDelay::brief, IoStatus::target_error};
    case ErrorClass::deferred_error:
      return wait(seconds(2), seconds(30), RetryDelay::attention, IoStatus::target_error);

    case ErrorClass::becoming_ready:
    case ErrorClass::format_in_progress:
      return wait(seconds(0), seconds(45), RetryDelay::pause, IoStatus::no_path);
    case ErrorClass::access_transition:
      return wait(seconds(0), seconds(90), RetryDelay::pause, IoStatus::no_path);
    // LIO says so of every error of its backing disk: of one bad block too, which must neither hang
    // nor take the path from all other requests. The checker is asked at once; see Path::ended().
    case ErrorClass::communication_failure:
      return {keep, 0, 4, RetryDelay::pause, IoStatus::target_error};
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
      return wait(seconds(15), seconds(60), RetryDelay::attention, IoStatus::target_error);
    case ErrorClass::identity_attention:
      return wait(seconds(0), seconds(60), RetryDelay::attention, IoStatus::target_error, verify);

    case ErrorClass::write_protected:
    case ErrorClass::data_protect:
      return {keep, 0, 0, RetryDelay::none, IoStatus::write_protected};
    case ErrorClass::no_space:
      return {keep, 0, 0, RetryDelay::none, IoStatus::no_space};

    case ErrorClass::duration_limit:
      return {keep, 0, 0, RetryDelay::none, IoStatus::target_error};
    case ErrorClass::protection_error:  // may be one controller's, as a hardware error
      return {keep, 0, 1, RetryDelay::none, IoStatus::target_error};
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

RetryState::Step RetryState::next(ErrorClass error, const ErrorRule& rule, TimePoint now) {
  if (error != last_ || count_ == 0) {
    last_ = error;
    count_ = 0;
    first_at_ = now;
  }
  if (rule.retries_elsewhere == kUnlimitedRetries) {
    count_ = static_cast<std::uint16_t>(std::min(count_ + 1, kMaxRetries + 0));
    return Step::elsewhere;
  }
  const bool by_time = rule.time_in_all != Duration::zero();
  const Duration passed = now - first_at_;
  const bool over =
      by_time ? passed >= rule.time_in_all : count_ >= rule.retries_here + rule.retries_elsewhere;
  if (over || bounded_total_ >= kMaxRetries) {
    return Step::answer;
  }
  ++bounded_total_;
  ++count_;
  const bool here = by_time ? passed < rule.time_here : count_ <= rule.retries_here;
  return here ? Step::here : Step::elsewhere;
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
