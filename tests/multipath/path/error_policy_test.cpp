#include "multipath/path/error_policy.h"

#include <gtest/gtest.h>

#include <memory>

namespace iscsi_blkback {
namespace {

using enum ErrorClass;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Codes = std::initializer_list<std::uint16_t>;

// A task and what became of it; 4096 bytes were asked for.
std::unique_ptr<ScsiTask> answered(ScsiStatus status, std::uint32_t transferred = 0) {
  auto task = std::make_unique<ScsiTask>();
  task->data_length_bytes = 4096;
  task->status = status;
  task->transferred_bytes = transferred;
  return task;
}

ErrorClass class_of_status(ScsiStatus status) {
  return classify(*answered(status));
}

ErrorClass class_of_sense(SenseKey key, std::uint16_t code, std::uint32_t transferred = 0) {
  const auto task = answered(ScsiStatus::check_condition, transferred);
  task->sense = {.valid = true,
                 .key = key,
                 .asc = static_cast<std::uint8_t>(code >> 8),
                 .ascq = static_cast<std::uint8_t>(code & 0xff)};
  return classify(*task);
}

ErrorClass class_of_outcome(TaskOutcome outcome) {
  const auto task = answered(ScsiStatus::good, 4096);
  task->outcome = outcome;
  return classify(*task);
}

void expect_rule(ErrorClass error, PathVerdict path, std::uint16_t here, std::uint16_t elsewhere,
                 RetryDelay delay, IoStatus answer) {
  const ErrorRule rule = rule_for(error);
  EXPECT_EQ(rule.path, path);
  EXPECT_EQ(rule.retries_here, here);
  EXPECT_EQ(rule.retries_elsewhere, elsewhere);
  EXPECT_EQ(rule.time_in_all, Duration::zero());
  EXPECT_EQ(rule.delay, delay);
  EXPECT_EQ(rule.answer, answer);
}

void expect_wait(ErrorClass error, Duration here, Duration in_all, RetryDelay delay,
                 IoStatus answer, PathVerdict path = PathVerdict::keep) {
  const ErrorRule rule = rule_for(error);
  EXPECT_EQ(rule.path, path);
  EXPECT_EQ(rule.time_here, here);
  EXPECT_EQ(rule.time_in_all, in_all);
  EXPECT_EQ(rule.delay, delay);
  EXPECT_EQ(rule.answer, answer);
}

void expect_answer_at_once(ErrorClass error, IoStatus answer) {
  expect_rule(error, PathVerdict::keep, 0, 0, RetryDelay::none, answer);
}

void expect_path_fails(ErrorClass error) {
  expect_rule(error, PathVerdict::fail, 0, kUnlimitedRetries, RetryDelay::none, IoStatus::no_path);
}

TEST(ErrorPolicy, GoodWithTheFullLengthIsSuccess) {
  EXPECT_EQ(classify(*answered(ScsiStatus::good, 4096)), success);
  EXPECT_EQ(rule_for(success).answer, IoStatus::ok);
}

TEST(ErrorPolicy, ConditionMetWithTheFullLengthIsSuccess) {
  EXPECT_EQ(classify(*answered(ScsiStatus::condition_met, 4096)), success);
}

TEST(ErrorPolicy, RecoveredErrorWithTheFullLengthIsSuccess) {
  EXPECT_EQ(class_of_sense(SenseKey::recovered_error, 0x1701, 4096), success);
}

TEST(ErrorPolicy, RecoveredErrorWithoutTheFullLengthIsAShortTransfer) {
  EXPECT_EQ(class_of_sense(SenseKey::recovered_error, 0x1701, 512), short_transfer);
}

// SPC-4 4.5.6: "no specific sense key information to be reported", a command that has succeeded.
TEST(ErrorPolicy, NoSenseWithTheFullLengthIsSuccess) {
  EXPECT_EQ(class_of_sense(SenseKey::no_sense, 0x0000, 4096), success);
  EXPECT_EQ(class_of_sense(SenseKey::no_sense, 0x5d00, 4096), success);
  EXPECT_EQ(class_of_sense(SenseKey::no_sense, 0x0000, 512), short_transfer);
}

// INQUIRY and the like: the target knows best how long its answer is.
TEST(ErrorPolicy, AnAnswerOfTheTargetsLengthIsWholeWhateverWasAskedFor) {
  EXPECT_EQ(classify(*answered(ScsiStatus::good, 36), Transfer::at_most), success);
  const auto task = answered(ScsiStatus::check_condition, 36);
  for (const SenseKey key : {SenseKey::no_sense, SenseKey::recovered_error}) {
    task->sense = {.valid = true, .key = key};
    EXPECT_EQ(classify(*task, Transfer::at_most), success);
  }
  task->status = ScsiStatus::busy;
  EXPECT_EQ(classify(*task, Transfer::at_most), busy);
}

TEST(ErrorPolicy, ConnectionLostGoesToAnotherPathWithoutLimit) {
  EXPECT_EQ(class_of_outcome(TaskOutcome::connection_lost), connection_lost);
  expect_rule(connection_lost, PathVerdict::keep, 0, kUnlimitedRetries, RetryDelay::none,
              IoStatus::no_path);
}

TEST(ErrorPolicy, NotSentGoesToAnotherPathWithoutLimit) {
  EXPECT_EQ(class_of_outcome(TaskOutcome::not_sent), not_sent);
  expect_rule(not_sent, PathVerdict::keep, 0, kUnlimitedRetries, RetryDelay::none,
              IoStatus::no_path);
}

// The target has confirmed its end, so it may go anywhere at once; nothing to fence.
TEST(ErrorPolicy, AbortedCommandGoesElsewhereAndInTheEndThePathFails) {
  EXPECT_EQ(class_of_outcome(TaskOutcome::aborted), command_stuck);
  expect_rule(command_stuck, PathVerdict::keep, 0, 5, RetryDelay::none, IoStatus::no_path);
}

// The full length is there, but the target had more: it has understood another command.
TEST(ErrorPolicy, GoodWithOverflowIsNoSuccess) {
  const auto task = answered(ScsiStatus::good, 4096);
  task->overflow = true;
  EXPECT_EQ(classify(*task), short_transfer);
  task->status = ScsiStatus::check_condition;
  task->sense = {.valid = true, .key = SenseKey::recovered_error, .asc = 0x17, .ascq = 0};
  EXPECT_EQ(classify(*task), short_transfer);
}

// A status of GOOD counts for nothing beside another response code.
TEST(ErrorPolicy, TargetFailureIsRetriedHereThenElsewhereThenAnError) {
  EXPECT_EQ(class_of_outcome(TaskOutcome::target_failure), target_failure);
  expect_rule(target_failure, PathVerdict::keep, 1, 4, RetryDelay::brief, IoStatus::target_error);
}

TEST(ErrorPolicy, GoodWithoutTheFullLengthIsRetriedOnceThenAnError) {
  EXPECT_EQ(classify(*answered(ScsiStatus::good, 4095)), short_transfer);
  EXPECT_EQ(classify(*answered(ScsiStatus::good, 0)), short_transfer);
  expect_rule(short_transfer, PathVerdict::keep, 1, 0, RetryDelay::none, IoStatus::target_error);
}

TEST(ErrorPolicy, BusyIsRetriedHereForAWhileThenElsewhereThenThePathFails) {
  EXPECT_EQ(class_of_status(ScsiStatus::busy), busy);
  expect_wait(busy, seconds(2), seconds(120), RetryDelay::brief, IoStatus::no_path);
}

TEST(ErrorPolicy, TaskSetFullIsRetriedHereForAWhileThenElsewhereThenThePathFails) {
  EXPECT_EQ(class_of_status(ScsiStatus::task_set_full), task_set_full);
  expect_wait(task_set_full, seconds(2), seconds(120), RetryDelay::brief, IoStatus::no_path);
}

TEST(ErrorPolicy, ReservationConflictIsTheGuests) {
  EXPECT_EQ(class_of_status(ScsiStatus::reservation_conflict), reservation_conflict);
  expect_answer_at_once(reservation_conflict, IoStatus::reservation_conflict);
}

TEST(ErrorPolicy, TaskAbortedIsRetried) {
  EXPECT_EQ(class_of_status(ScsiStatus::task_aborted), task_aborted);
  expect_wait(task_aborted, seconds(2), seconds(30), RetryDelay::attention, IoStatus::target_error);
}

TEST(ErrorPolicy, AcaActiveIsRetriedThenAnError) {
  EXPECT_EQ(class_of_status(ScsiStatus::aca_active), aca_active);
  expect_wait(aca_active, seconds(2), seconds(30), RetryDelay::brief, IoStatus::target_error);
}

TEST(ErrorPolicy, AStatusThatDoesNotExistIsNoSuccess) {
  EXPECT_EQ(classify(*answered(static_cast<ScsiStatus>(0x77), 4096)), unknown_status);
  expect_rule(unknown_status, PathVerdict::keep, 1, 1, RetryDelay::none, IoStatus::target_error);
}

TEST(ErrorPolicy, CheckConditionWithoutUsableSenseIsRetriedThenAnError) {
  EXPECT_EQ(class_of_status(ScsiStatus::check_condition), unusable_sense);
  expect_rule(unusable_sense, PathVerdict::keep, 1, 2, RetryDelay::brief, IoStatus::target_error);
}

// Response codes 71h and 73h: whatever it says, this command has not been executed (SPC-4 4.5.7).
TEST(ErrorPolicy, DeferredErrorIsRetried) {
  for (const SenseKey key :
       {SenseKey::medium_error, SenseKey::recovered_error, SenseKey::hardware_error}) {
    const auto task = answered(ScsiStatus::check_condition, 4096);
    task->sense = {.valid = true, .deferred = true, .key = key, .asc = 0x0c, .ascq = 0};
    EXPECT_EQ(classify(*task), deferred_error);
  }
  expect_wait(deferred_error, seconds(2), seconds(30), RetryDelay::attention,
              IoStatus::target_error);
}

TEST(ErrorPolicy, BecomingReadyIsWaitedForThenThePathFails) {
  for (const std::uint16_t code : Codes{0x0401, 0x0405, 0x0406, 0x0407, 0x0408, 0x0409, 0x0411,
                                        0x0414, 0x041a, 0x041b, 0x041d}) {
    EXPECT_EQ(class_of_sense(SenseKey::not_ready, code), becoming_ready) << code;
  }
  expect_wait(becoming_ready, seconds(0), seconds(45), RetryDelay::pause, IoStatus::no_path);
}

TEST(ErrorPolicy, FormatInProgressIsWaitedForThenThePathFails) {
  EXPECT_EQ(class_of_sense(SenseKey::not_ready, 0x0404), format_in_progress);
  expect_wait(format_in_progress, seconds(0), seconds(45), RetryDelay::pause, IoStatus::no_path);
}

TEST(ErrorPolicy, AccessStateTransitionIsWaitedForElsewhereThenThePathFails) {
  EXPECT_EQ(class_of_sense(SenseKey::not_ready, 0x040a), access_transition);
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x040a), access_transition);
  expect_wait(access_transition, seconds(0), seconds(90), RetryDelay::pause, IoStatus::no_path);
}

TEST(ErrorPolicy, StandbyUnavailableAndOfflineFailThePath) {
  for (const std::uint16_t code : Codes{0x040b, 0x040c, 0x0412}) {
    EXPECT_EQ(class_of_sense(SenseKey::not_ready, code), access_state) << code;
  }
  expect_path_fails(access_state);
}

TEST(ErrorPolicy, NotReadyForAnyOtherReasonFailsThePath) {
  for (const std::uint16_t code : Codes{0x0400, 0x0402, 0x0403, 0x040d, 0x3a00, 0x3e00}) {
    EXPECT_EQ(class_of_sense(SenseKey::not_ready, code), not_ready) << code;
  }
  expect_path_fails(not_ready);
}

TEST(ErrorPolicy, UnrecoveredMediumErrorIsTriedOnceHereOnceElsewhere) {
  for (const std::uint16_t code : Codes{0x1100, 0x1104, 0x1300, 0x1401}) {
    EXPECT_EQ(class_of_sense(SenseKey::medium_error, code), medium_unrecovered) << code;
  }
  expect_rule(medium_unrecovered, PathVerdict::keep, 1, 1, RetryDelay::none,
              IoStatus::medium_error);
}

TEST(ErrorPolicy, OtherMediumErrorsNeverFailThePath) {
  EXPECT_EQ(class_of_sense(SenseKey::medium_error, 0x0c00), medium_other);
  expect_rule(medium_other, PathVerdict::keep, 2, 1, RetryDelay::none, IoStatus::medium_error);
}

TEST(ErrorPolicy, HardwareErrorIsTriedOnceElsewhere) {
  EXPECT_EQ(class_of_sense(SenseKey::hardware_error, 0x4400), hardware_error);
  expect_rule(hardware_error, PathVerdict::keep, 0, 1, RetryDelay::none, IoStatus::target_error);
}

TEST(ErrorPolicy, AnUnknownCommandIsNotSupported) {
  EXPECT_EQ(class_of_sense(SenseKey::illegal_request, 0x2000), command_unsupported);
  expect_answer_at_once(command_unsupported, IoStatus::not_supported);
}

TEST(ErrorPolicy, AnAddressOutOfRangeIsTheGuests) {
  EXPECT_EQ(class_of_sense(SenseKey::illegal_request, 0x2100), out_of_range);
  expect_answer_at_once(out_of_range, IoStatus::out_of_range);
}

TEST(ErrorPolicy, AMissingLunFailsThePath) {
  EXPECT_EQ(class_of_sense(SenseKey::illegal_request, 0x2500), lun_missing);
  expect_path_fails(lun_missing);
}

TEST(ErrorPolicy, OtherIllegalRequestsAreTheGuests) {
  for (const std::uint16_t code : Codes{0x2400, 0x2200, 0x2600, 0x2501}) {
    EXPECT_EQ(class_of_sense(SenseKey::illegal_request, code), illegal_request) << code;
  }
  expect_answer_at_once(illegal_request, IoStatus::target_error);
}

TEST(ErrorPolicy, UnitAttentionIsRetriedHere) {
  for (const std::uint16_t code : Codes{0x2a02, 0x3f05, 0x0000}) {
    EXPECT_EQ(class_of_sense(SenseKey::unit_attention, code), unit_attention) << code;
  }
  expect_wait(unit_attention, seconds(15), seconds(60), RetryDelay::attention,
              IoStatus::target_error);
}

TEST(ErrorPolicy, AChangedAccessStateIsReadAgainAndTheRequestRetriedHere) {
  for (const std::uint16_t code : Codes{0x2a06, 0x2a07}) {
    EXPECT_EQ(class_of_sense(SenseKey::unit_attention, code), access_changed) << code;
  }
  expect_wait(access_changed, seconds(15), seconds(60), RetryDelay::attention,
              IoStatus::target_error);
  EXPECT_TRUE(concerns_access(access_changed));
  EXPECT_TRUE(concerns_access(access_state));
  EXPECT_TRUE(concerns_access(access_transition));
  EXPECT_FALSE(concerns_access(unit_attention));
}

TEST(ErrorPolicy, AnRdacControllerThatIsNotTheOwnerFailsThePath) {
  EXPECT_EQ(class_of_sense(SenseKey::illegal_request, 0x9401), access_state);
  expect_path_fails(access_state);
}

TEST(ErrorPolicy, RdacQuiescenceIsWaitedFor) {
  EXPECT_EQ(class_of_sense(SenseKey::not_ready, 0x04a1), becoming_ready);
}

TEST(ErrorPolicy, TheSoftThresholdOfThinProvisioningIsRetriedHere) {
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x3807), space_attention);
  expect_wait(space_attention, seconds(15), seconds(60), RetryDelay::attention,
              IoStatus::target_error);
}

TEST(ErrorPolicy, MediumMayHaveChangedVerifiesTheIdentity) {
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x2800), identity_attention);
}

TEST(ErrorPolicy, EveryResetVerifiesTheIdentity) {
  for (const std::uint16_t code : Codes{0x2900, 0x2901, 0x2902, 0x2903, 0x2904, 0x2907}) {
    EXPECT_EQ(class_of_sense(SenseKey::unit_attention, code), identity_attention) << code;
  }
}

TEST(ErrorPolicy, ChangedCapacityVerifiesTheIdentity) {
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x2a09), identity_attention);
}

TEST(ErrorPolicy, ChangedInquiryDataVerifiesTheIdentity) {
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x3f03), identity_attention);
}

TEST(ErrorPolicy, WhatChangesHowTheLunWorksVerifiesTheIdentity) {
  for (const std::uint16_t code : Codes{0x2a00, 0x2a01, 0x3f00, 0x3f01, 0x3f02}) {
    EXPECT_EQ(class_of_sense(SenseKey::unit_attention, code), identity_attention) << code;
  }
}

TEST(ErrorPolicy, ChangedLunsVerifyTheIdentity) {
  EXPECT_EQ(class_of_sense(SenseKey::unit_attention, 0x3f0e), identity_attention);
}

TEST(ErrorPolicy, IdentityAttentionStopsThePathUntilItIsVerified) {
  expect_wait(identity_attention, seconds(0), seconds(60), RetryDelay::attention,
              IoStatus::target_error, PathVerdict::verify);
}

TEST(ErrorPolicy, WriteProtectedIsTheGuests) {
  for (const std::uint16_t code : Codes{0x2700, 0x2701, 0x2702}) {
    EXPECT_EQ(class_of_sense(SenseKey::data_protect, code), write_protected) << code;
  }
  expect_answer_at_once(write_protected, IoStatus::write_protected);
}

TEST(ErrorPolicy, NoSpaceIsTheGuests) {
  EXPECT_EQ(class_of_sense(SenseKey::data_protect, 0x2707), no_space);
  expect_answer_at_once(no_space, IoStatus::no_space);
}

TEST(ErrorPolicy, OtherDataProtectIsTheGuests) {
  EXPECT_EQ(class_of_sense(SenseKey::data_protect, 0x2704), data_protect);
  expect_answer_at_once(data_protect, IoStatus::write_protected);
}

TEST(ErrorPolicy, DurationLimitIsTheGuests) {
  EXPECT_EQ(class_of_sense(SenseKey::aborted_command, 0x2e01), duration_limit);
  EXPECT_EQ(class_of_sense(SenseKey::aborted_command, 0x2e03), duration_limit);
  expect_answer_at_once(duration_limit, IoStatus::target_error);
}

TEST(ErrorPolicy, AFailedProtectionCheckIsTriedOnceElsewhere) {
  for (const std::uint16_t code : Codes{0x1000, 0x1001, 0x1002, 0x1003}) {
    EXPECT_EQ(class_of_sense(SenseKey::aborted_command, code), protection_error) << code;
  }
  expect_rule(protection_error, PathVerdict::keep, 0, 1, RetryDelay::none, IoStatus::target_error);
}

// Many targets say so what others say with BUSY.
TEST(ErrorPolicy, AbortedCommandIsWaitedForLikeBusy) {
  EXPECT_EQ(class_of_sense(SenseKey::aborted_command, 0x4700), aborted_command);
  EXPECT_EQ(class_of_sense(SenseKey::aborted_command, 0x2e04), aborted_command);
  expect_wait(aborted_command, seconds(2), seconds(120), RetryDelay::brief, IoStatus::no_path);
}

TEST(ErrorPolicy, TheRemainingSenseKeysAreTheGuests) {
  for (const SenseKey key :
       {SenseKey::blank_check, SenseKey::vendor_specific, SenseKey::copy_aborted,
        SenseKey::reserved, SenseKey::volume_overflow, SenseKey::miscompare, SenseKey::completed}) {
    EXPECT_EQ(class_of_sense(key, 0x0000), refused);
  }
  expect_answer_at_once(refused, IoStatus::target_error);
}

// Whatever a target answers, it is either one of the classes or an assertion's business.
TEST(ErrorPolicy, EverySenseCodeHasARuleThatEndsOrWaitsForAPath) {
  for (int key = 0; key < 16; ++key) {
    for (int code = 0; code < 0x10000; ++code) {
      const ErrorRule rule =
          rule_for(class_of_sense(static_cast<SenseKey>(key), static_cast<std::uint16_t>(code)));
      const bool unlimited = rule.retries_elsewhere == kUnlimitedRetries;
      ASSERT_TRUE(!unlimited || rule.path == PathVerdict::fail) << key << ' ' << code;
      ASSERT_TRUE(rule.answer != IoStatus::ok) << key << ' ' << code;
    }
  }
}

using Step = RetryState::Step;

constexpr TimePoint kStart{Duration(1000)};

TEST(RetryState, CountsHereThenElsewhereThenAnswers) {
  RetryState state;
  const ErrorRule rule = rule_for(medium_other);
  EXPECT_EQ(state.next(medium_other, rule, kStart), Step::here);
  EXPECT_EQ(state.next(medium_other, rule, kStart), Step::here);
  EXPECT_EQ(state.next(medium_other, rule, kStart), Step::elsewhere);
  EXPECT_EQ(state.next(medium_other, rule, kStart), Step::answer);
}

TEST(RetryState, WaitsHereThenElsewhereThenAnswersHoweverOftenItAsks) {
  RetryState state;
  const ErrorRule rule = rule_for(aborted_command);
  EXPECT_EQ(state.next(aborted_command, rule, kStart), Step::here);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(state.next(aborted_command, rule, kStart + milliseconds(1999)), Step::here);
  }
  EXPECT_EQ(state.next(aborted_command, rule, kStart + seconds(2)), Step::elsewhere);
  EXPECT_EQ(state.next(aborted_command, rule, kStart + milliseconds(119999)), Step::elsewhere);
  EXPECT_EQ(state.next(aborted_command, rule, kStart + seconds(120)), Step::answer);
}

TEST(RetryState, AnotherErrorStartsANewTime) {
  RetryState state;
  EXPECT_EQ(state.next(busy, rule_for(busy), kStart), Step::here);
  EXPECT_EQ(state.next(aborted_command, rule_for(aborted_command), kStart + seconds(119)),
            Step::here);
  EXPECT_EQ(state.next(busy, rule_for(busy), kStart + seconds(130)), Step::here);
}

TEST(RetryState, AnotherErrorStartsANewCount) {
  RetryState state;
  EXPECT_EQ(state.next(medium_unrecovered, rule_for(medium_unrecovered), kStart), Step::here);
  EXPECT_EQ(state.next(medium_unrecovered, rule_for(medium_unrecovered), kStart), Step::elsewhere);
  EXPECT_EQ(state.next(medium_other, rule_for(medium_other), kStart), Step::here);
}

TEST(RetryState, TheTimeInWhichARequestWaitsForSomethingOfOursDoesNotCount) {
  RetryState state;
  const ErrorRule rule = rule_for(task_aborted);  // 2 s here, 30 s in all
  EXPECT_EQ(state.next(task_aborted, rule, kStart), Step::here);
  state.wait(kStart + seconds(1));
  state.wait(kStart + seconds(50));  // from one list to another
  state.go_on(kStart + seconds(3600));
  EXPECT_EQ(state.next(task_aborted, rule, kStart + seconds(3600)), Step::here);
  EXPECT_EQ(state.next(task_aborted, rule, kStart + seconds(3601)), Step::elsewhere);
  EXPECT_EQ(state.next(task_aborted, rule, kStart + seconds(3628)), Step::elsewhere);
  EXPECT_EQ(state.next(task_aborted, rule, kStart + seconds(3629)), Step::answer);
}

TEST(RetryState, TheNumberOfErrorsGoesOnWhereARequestHasWaited) {
  RetryState state;
  const ErrorRule rule = rule_for(unit_attention);
  int retries = 0;
  for (TimePoint now = kStart; state.next(unit_attention, rule, now) != Step::answer;
       now += seconds(1)) {
    ASSERT_LE(++retries, RetryState::kMaxRetries);
    state.wait(now);
    state.go_on(now + seconds(1));
  }
  EXPECT_EQ(retries, RetryState::kMaxRetries);
  EXPECT_GE(state.delay(RetryDelay::attention, 0), milliseconds(500)) << "no tight loop";
}

TEST(RetryState, AlternatingErrorsAreBoundedToo) {
  RetryState state;
  int retries = 0;
  while (state.next(retries % 2 == 0 ? busy : unit_attention, rule_for(busy), kStart) !=
         Step::answer) {
    ASSERT_LE(++retries, RetryState::kMaxRetries);
  }
  EXPECT_EQ(retries, RetryState::kMaxRetries);
}

TEST(RetryState, TransportErrorsNeverAnswer) {
  RetryState state;
  for (int i = 0; i < 100000; ++i) {
    ASSERT_EQ(state.next(connection_lost, rule_for(connection_lost), kStart), Step::elsewhere);
  }
}

TEST(RetryState, BriefDelayDoublesUpToASecondWithJitter) {
  RetryState state;
  for (int i = 0; i < 12; ++i) {
    static_cast<void>(state.next(busy, rule_for(busy), kStart));
    const Duration full = std::min<Duration>(milliseconds(10) * (1 << i), milliseconds(1000));
    for (const std::uint64_t random :
         {std::uint64_t{0}, std::uint64_t{123456789}, ~std::uint64_t{0}}) {
      const Duration delay = state.delay(RetryDelay::brief, random);
      EXPECT_GE(delay, full / 2);
      EXPECT_LE(delay, full);
    }
  }
}

TEST(RetryState, AStormOfUnitAttentionsIsSlowedDown) {
  RetryState state;
  for (int i = 0; i < 4; ++i) {
    static_cast<void>(state.next(unit_attention, rule_for(unit_attention), kStart));
    EXPECT_EQ(state.delay(RetryDelay::attention, 1), Duration::zero());
  }
  static_cast<void>(state.next(unit_attention, rule_for(unit_attention), kStart));
  EXPECT_GT(state.delay(RetryDelay::attention, 1), Duration::zero());
}

TEST(RetryState, PauseIsHalfASecondToOne) {
  RetryState state;
  static_cast<void>(state.next(becoming_ready, rule_for(becoming_ready), kStart));
  EXPECT_TRUE(state.first());
  EXPECT_GE(state.delay(RetryDelay::pause, 0), milliseconds(500));
  EXPECT_LE(state.delay(RetryDelay::pause, ~std::uint64_t{0}), milliseconds(1000));
}

}  // namespace
}  // namespace iscsi_blkback
