// What a guest sees, and does not see, of the errors that a target reports.
#include <gmock/gmock.h>

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(MultipathTest, AUnitAttentionOnTheOnlyPathIsNoOutageEvenWithNoPathRetryOfZero) {
  options_.no_path_retry = milliseconds(0);
  start({1});
  target_->add_unit_attention(0x3f0e);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

// The connection ends whenever a write is tried: a path that is up in between is none to wait for.
class RepeatedEndsTest : public MultipathTest {
 protected:
  void end_the_session_at_every_write() {
    SimFault end = status_fault(ScsiStatus::good, 0);
    end.matches = [this](const SimCommand& command) {
      if (is_write(command)) {
        reactor_.schedule(Duration::zero(),
                          [this] { reactor_.network().reset_connections(portal_address(0)); });
      }
      return false;
    };
    target_->inject(end);
  }
};

TEST_F(RepeatedEndsTest, AWriteThatEndsEverySessionFailsAfterNoPathRetry) {
  options_.no_path_retry = seconds(10);
  start({1});
  end_the_session_at_every_write();
  EXPECT_EQ(answer(write(0, 8, 1), seconds(60)), IoStatus::no_path);
  EXPECT_THAT(path(0).last_error, testing::HasSubstr("another host"));
  EXPECT_LE(target_->counters.logins, 15U) << "and the target is not run down";
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(1, seconds(31)));
  EXPECT_EQ(answer(write(0, 8, 2)), IoStatus::ok);
}

TEST_F(RepeatedEndsTest, WithoutNoPathRetryTheWriteWaitsUntilTheTargetTakesIt) {
  start({1});
  end_the_session_at_every_write();
  GuestRequest& waits = write(0, 8, 1);
  reactor_.run_for(std::chrono::minutes(10));
  EXPECT_TRUE(pending(waits));
  EXPECT_LE(target_->counters.logins, 40U);
  target_->clear_faults();
  EXPECT_EQ(answer(waits, seconds(31)), IoStatus::ok);
}

// Once a session has lasted, what ends it is a new outage, with all of its no_path_retry.
TEST_F(RepeatedEndsTest, ASessionThatLastsIsAPathAgain) {
  options_.no_path_retry = seconds(40);
  start({1});
  end_the_session_at_every_write();
  EXPECT_EQ(answer(write(0, 8, 1), seconds(120)), IoStatus::no_path);
  target_->clear_faults();
  ASSERT_TRUE(wait_for_up(1, seconds(31)));
  reactor_.run_for(std::chrono::minutes(6));
  cut(0);
  GuestRequest& waits = write(0, 8, 2);
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(pending(waits));
  restore(0);
  EXPECT_EQ(answer(waits, seconds(5)), IoStatus::ok);
}

// How long it is tried again is a matter of the request, not of its slot.
TEST_F(MultipathTest, ARequestDoesNotPayForTheOneBeforeIt) {
  start({1});
  for (std::uint64_t i = 0; i < 3; ++i) {
    target_->inject(status_fault(ScsiStatus::task_aborted));
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok) << i;
    reactor_.run_for(std::chrono::minutes(3));
  }
}

TEST_F(MultipathTest, BusyStormsAreWaitedFor) {
  start();
  target_->inject(status_fault(ScsiStatus::busy, 100));
  for (std::uint64_t i = 0; i < 10; ++i) {
    write(i * 8, 8, 3);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  EXPECT_EQ(up(), 2U);
}

TEST_F(MultipathTest, TaskSetFullLowersTheQueueUntilAllFits) {
  start({1});
  // A target with room for four commands.
  std::uint32_t at_target = 0;
  std::uint32_t refusals = 0;
  SimFault full = status_fault(ScsiStatus::task_set_full, 0);
  full.matches = [&](const SimCommand& command) {
    if (!is_write(command)) {
      return false;
    }
    if (at_target < 4) {
      ++at_target;
      reactor_.schedule(milliseconds(1), [&] { --at_target; });
      return false;
    }
    ++refusals;
    return true;
  };
  target_->inject(full);
  const auto write_all = [&] {  // how many were refused
    const std::size_t before = requests_.size();
    for (std::uint64_t i = 0; i < 64; ++i) {
      write(i * 8, 8, 3);
    }
    for (std::size_t i = before; i < requests_.size(); ++i) {
      EXPECT_EQ(answer(*requests_[i], seconds(60)), IoStatus::ok);
    }
    return std::exchange(refusals, 0);
  };
  EXPECT_GE(write_all(), 60U);
  for (int round = 0; round < 10; ++round) {
    write_all();
  }
  EXPECT_LE(write_all(), 30U);
  target_->clear_faults();
}

TEST_F(MultipathTest, UnitAttentionsAreRetriedAndTheGuestSeesNone) {
  start();
  for (const std::uint16_t code :
       {std::uint16_t{0x2900}, std::uint16_t{0x2a01}, std::uint16_t{0x2a09}, std::uint16_t{0x3f0e},
        std::uint16_t{0x3f03}, std::uint16_t{0x2800}}) {
    target_->add_unit_attention(code);
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
    EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  }
  EXPECT_TRUE(wait_for_up(2));
}

TEST_F(MultipathTest, AStormOfUnitAttentionsDoesNotBecomeAnError) {
  start();
  target_->inject(sense_fault(SenseKey::unit_attention, 0x3f0e, 40));
  EXPECT_EQ(answer(write(0, 8, 1), seconds(60)), IoStatus::ok);
}

// --- the time of retries: without what the request waits for something of ours

// The second error has nothing to do with the first.
TEST_F(MultipathTest, TheTimeWithoutAPathIsNoTimeOfRetries) {
  start({1});
  SimFault hold;
  hold.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kInquiry;
  };
  hold.count = 0;
  hold.hold = true;
  target_->inject(hold);
  target_->inject(sense_fault(SenseKey::unit_attention, 0x3f0e));
  GuestRequest& waiting = write(0, 8, 1);
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(path(0).state, PathState::pending);
  cut(0);
  reactor_.run_for(seconds(90));
  target_->clear_faults();
  restore(0);
  target_->inject(sense_fault(SenseKey::unit_attention, 0x3f0e));
  EXPECT_EQ(answer(waiting, seconds(60)), IoStatus::ok);
}

TEST_F(MultipathTest, TheTimeOfASuspendIsNoTimeOfRetries) {
  start({1});
  SimFault late = status_fault(ScsiStatus::task_aborted);
  late.extra_delay = milliseconds(5);
  target_->inject(late);
  GuestRequest& waiting = write(0, 8, 1);
  reactor_.run_for(milliseconds(1));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(40));
  EXPECT_TRUE(pending(waiting));
  target_->clear_faults();
  target_->inject(status_fault(ScsiStatus::task_aborted));
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(waiting, seconds(60)), IoStatus::ok);
}

// Another write that it overlaps was lost on the other path: rule 2 of write_order.h.
TEST_F(MultipathTest, TheTimeUntilAFenceIsNoTimeOfRetries) {
  options_.portal_group_fences = PortalGroupFences::no;
  start({1, 2});
  hold_next_write_at(0);
  GuestRequest& lost = at_path(0, [this]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(5));
  SimFault late = status_fault(ScsiStatus::task_aborted);
  late.extra_delay = milliseconds(20);
  late.matches = writes_at(1);
  target_->inject(late);
  GuestRequest& held = at_path(1, [this]() -> GuestRequest& { return write(0, 8, 2); });
  cut(0);
  reactor_.run_for(seconds(40));  // quiesce_time: 60 s
  EXPECT_TRUE(pending(held));
  target_->clear_faults();
  late.count = 1;
  target_->inject(late);
  EXPECT_EQ(answer(held, seconds(60)), IoStatus::ok);
  EXPECT_EQ(answer(lost, seconds(60)), IoStatus::ok);
  restore(0);
}

// A LUN that is full for a while, and busy before and after that, is a good path.
TEST_F(MultipathTest, TheTimeWithoutSpaceIsNoTimeOfRetries) {
  start({1});
  target_->inject(status_fault(ScsiStatus::busy));
  SimFault full = sense_fault(SenseKey::data_protect, 0x2707, 0);
  GuestRequest& waiting = write(0, 8, 1);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).failures == 1; }, seconds(1)));
  target_->inject(full);
  reactor_.run_for(seconds(200));
  EXPECT_EQ(device_->snapshot().waiting_for_space, 1U);
  target_->clear_faults();
  target_->inject(status_fault(ScsiStatus::busy));
  EXPECT_FALSE(reactor_.run_until([this] { return path(0).state != PathState::up; }, seconds(6)));
  EXPECT_EQ(waiting.status, IoStatus::ok);
}

TEST_F(MultipathTest, StandbyPathIsLeftForTheOtherAndTakenBackWhenItIsReady) {
  start();
  SimFault standby = sense_fault(SenseKey::not_ready, 0x040b, 0);
  standby.matches = [](const SimCommand& command) { return command.portal == 0; };
  target_->inject(standby);
  for (int i = 0; i < 4; ++i) {
    const GuestRequest& request = write(0, 8, 1);
    EXPECT_EQ(answer(request), IoStatus::ok);
    EXPECT_LE(request.took(), milliseconds(20));
  }
  EXPECT_EQ(path(0).state, PathState::ghost);
  EXPECT_EQ(path(0).session_state, SessionState::logged_in);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(path(0).state, PathState::ghost);
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(2, seconds(2)));
}

TEST_F(MultipathTest, BecomingReadyOnAllPathsIsWaitedFor) {
  start();
  SimFault starting = sense_fault(SenseKey::not_ready, 0x0401, 0);
  target_->inject(starting);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(2)), IoStatus::ok);
}

TEST_F(MultipathTest, BecomingReadyForLongerThanThatIsNoErrorEither) {
  start({1});
  target_->inject(sense_fault(SenseKey::not_ready, 0x0401, 0));
  SimFault check = sense_fault(SenseKey::not_ready, 0x0401, 0);
  check.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kTestUnitReady;
  };
  target_->inject(check);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(600));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(up(), 0U);
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(2)), IoStatus::ok);
}

TEST_F(MultipathTest, ABusyTargetForMinutesIsNoErrorEither) {
  start();
  SimFault busy = status_fault(ScsiStatus::busy, 0);
  busy.matches = {};
  target_->inject(busy);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(600));
  EXPECT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(3)), IoStatus::ok);
}

TEST_F(MultipathTest, MediumErrorIsTheGuestsAfterOneTryElsewhere) {
  start();
  target_->inject(sense_fault(SenseKey::medium_error, 0x1100, 3));
  EXPECT_EQ(answer(read(0, 8)), IoStatus::medium_error);
  EXPECT_EQ(path(0).failures + path(1).failures, 3U);
  EXPECT_GE(path(0).failures, 1U);
  EXPECT_GE(path(1).failures, 1U);
  EXPECT_EQ(up(), 2U);
}

TEST_F(MultipathTest, ReservationConflictIsTheGuestsAndThePathStaysUp) {
  start();
  target_->inject(status_fault(ScsiStatus::reservation_conflict, 1));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::reservation_conflict);
  EXPECT_EQ(up(), 2U);
}

TEST_F(MultipathTest, ATargetFailureWithStatusGoodIsNoSuccess) {
  start();
  SimFault failure;
  failure.matches = any_io();
  failure.count = 0;
  failure.response_code = 1;
  target_->inject(failure);
  EXPECT_EQ(answer(write(0, 8, 9)), IoStatus::target_error);
  EXPECT_EQ(medium(0), 0);
}

TEST_F(MultipathTest, AShortReadIsNoSuccess) {
  start();
  SimFault shortened;
  shortened.matches = any_io();
  shortened.count = 0;
  shortened.cut_bytes = 512;
  target_->inject(shortened);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::target_error);
}

TEST_F(MultipathTest, NoWriteCommandLeavesAReadOnlyDisk) {
  options_.read_only = true;
  start();
  EXPECT_TRUE(device_->geometry().read_only);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::write_protected);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 0U);
  EXPECT_EQ(lun_->counters.flushes, 0U);
}

TEST_F(MultipathTest, AWriteProtectedLunMakesAReadOnlyDisk) {
  lun_options_.read_only = true;
  start();
  EXPECT_TRUE(device_->geometry().read_only);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::write_protected);
}

TEST_F(MultipathTest, AMissingLunTakesThePathDownUntilItIsBack) {
  start();
  target_->remove_lun(0);
  const GuestRequest& request = write(0, 8, 4);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(up(), 0U);
  target_->add_lun(0, lun_);
  EXPECT_EQ(answer(request, seconds(2)), IoStatus::ok);
}

TEST_F(MultipathTest, TheCheckerFindsAnIdlePathThatHasStoppedServing) {
  start();
  SimFault unavailable = sense_fault(SenseKey::not_ready, 0x040c, 0);
  unavailable.matches = [](const SimCommand& command) {
    return command.portal == 1 && command.cdb[0] == scsi_operation::kTestUnitReady;
  };
  target_->inject(unavailable);
  EXPECT_TRUE(reactor_.run_until([this] { return path(1).state == PathState::down; }, seconds(6)));
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(2, seconds(2)));
}

TEST_F(MultipathTest, TheCheckerLeavesABusyPathAlone) {
  start({1});
  std::uint64_t checks = 0;
  SimFault count;
  count.count = 0;
  count.matches = [&](const SimCommand& command) {
    checks += command.cdb[0] == scsi_operation::kTestUnitReady ? 1 : 0;
    return false;
  };
  target_->inject(count);
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
    reactor_.run_for(seconds(1));
  }
  EXPECT_EQ(checks, 0U);
  reactor_.run_for(seconds(60));
  // Every 20 s, as rarely as it gets; sooner or later by the jitter.
  EXPECT_GE(checks, 2U);
  EXPECT_LE(checks, 4U);
}

// As BUSY; how often it is asked meanwhile does not matter.
TEST_F(MultipathTest, ATargetThatAbortsEveryCommandForSecondsIsWaitedFor) {
  start({1});
  target_->inject(sense_fault(SenseKey::aborted_command, 0x0000, 0));
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(up(), 1U);
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(2)), IoStatus::ok);
}

TEST_F(MultipathTest, ATargetThatAbortsEveryCommandForMinutesIsNoErrorEither) {
  start();
  SimFault aborting = sense_fault(SenseKey::aborted_command, 0x0000, 0);
  aborting.matches = {};
  target_->inject(aborting);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(600));
  EXPECT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(10)), IoStatus::ok);
}

TEST_F(MultipathTest, AFailedProtectionCheckIsTheGuestsAtOnce) {
  start();
  target_->inject(sense_fault(SenseKey::aborted_command, 0x1001, 0));
  EXPECT_EQ(answer(read(0, 8), seconds(1)), IoStatus::target_error);
  EXPECT_EQ(path(0).failures + path(1).failures, 2U);
}

// NO SENSE beside CHECK CONDITION complains of nothing.
TEST_F(MultipathTest, NoSenseIsSuccess) {
  start();
  SimFault no_sense = sense_fault(SenseKey::no_sense, 0x0000, 0);
  no_sense.execute = true;
  target_->inject(no_sense);
  EXPECT_EQ(answer(write(0, 8, 9)), IoStatus::ok);
  EXPECT_EQ(medium(0), 9);
  EXPECT_EQ(lun_->counters.writes, 1U) << "no retry";
  target_->clear_faults();
}

// TEST UNIT READY with a status that complains of nothing, and the identification of a LUN that says
// "not now" in words of its own.
TEST_F(MultipathTest, ALunWhoseReadinessIsARecoveredErrorIsReady) {
  options_.path_checker = PathCheckerKind::tur;
  start_target({1});
  for (const SenseKey key : {SenseKey::recovered_error, SenseKey::no_sense}) {
    SimFault fault = sense_fault(key, 0x0000, 0);
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kTestUnitReady;
    };
    target_->clear_faults();
    target_->inject(fault);
    if (!device_) {
      start_device();
    }
    reactor_.run_for(seconds(60));
    EXPECT_EQ(up(), 1U);
  }
}

TEST_F(MultipathTest, ALunThatAbortsWhatAsksWhoItIsIsAskedAgain) {
  start_target({1});
  SimFault fault = sense_fault(SenseKey::aborted_command, 0x0000, 30);
  fault.matches = {};
  target_->inject(fault);
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(4)));
}

// RECOVERED ERROR with all of the data: the LUN says that it took some effort, no more.
TEST_F(MultipathTest, ARecoveredErrorIsSuccess) {
  start();
  SimFault recovered = sense_fault(SenseKey::recovered_error, 0x0c01, 0);
  recovered.execute = true;
  target_->inject(recovered);
  EXPECT_EQ(answer(write(0, 8, 9)), IoStatus::ok);
  EXPECT_EQ(medium(0), 9);
  EXPECT_EQ(lun_->counters.writes, 1U) << "no retry";
  target_->clear_faults();
}

// A deferred error is about an earlier command; this one has not been executed.
TEST_F(MultipathTest, ADeferredErrorIsRetried) {
  start();
  SimFault deferred = sense_fault(SenseKey::medium_error, 0x0c00, 2);
  deferred.sense[0] = std::byte{0x71};
  target_->inject(deferred);
  EXPECT_EQ(answer(write(0, 8, 9)), IoStatus::ok);
  EXPECT_EQ(medium(0), 9);
}

TEST_F(MultipathTest, AWriteThatTheTargetUnderstandsOtherwiseIsNoSuccess) {
  start();
  SimFault overflow;
  overflow.matches = any_io();
  overflow.count = 0;
  overflow.overflow_bytes = 512;
  overflow.execute = true;
  target_->inject(overflow);
  EXPECT_EQ(answer(write(0, 8, 9)), IoStatus::target_error);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::target_error);
  target_->clear_faults();
}

// As for multipathd: the path works, whoever may use the LUN.
TEST_F(MultipathTest, AReservationConflictOfTheCheckShowsThatThePathWorks) {
  start();
  SimFault conflict = status_fault(ScsiStatus::reservation_conflict, 0);
  conflict.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kTestUnitReady;
  };
  target_->inject(conflict);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(up(), 2U);
  target_->clear_faults();
}

// BUSY takes room too, but TASK SET FULL more of it; both only on the path that says so.
TEST_F(MultipathTest, TaskSetFullOnOnePathLeavesTheOtherAlone) {
  start();
  SimFault full = status_fault(ScsiStatus::task_set_full, 0);
  std::uint32_t at_target = 0;
  std::uint32_t most_elsewhere = 0;
  std::uint32_t elsewhere = 0;
  full.matches = [&](const SimCommand& command) {
    if (!is_write(command)) {
      return false;
    }
    if (command.portal == 1) {
      most_elsewhere = std::max(most_elsewhere, ++elsewhere);
      reactor_.schedule(milliseconds(1), [&] { --elsewhere; });
      return false;
    }
    if (at_target < 2) {
      ++at_target;
      reactor_.schedule(milliseconds(1), [&] { --at_target; });
      return false;
    }
    return true;
  };
  target_->inject(full);
  for (std::uint64_t i = 0; i < 128; ++i) {
    write(i * 8, 8, 3);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request, seconds(60)), IoStatus::ok);
  }
  EXPECT_GE(most_elsewhere, 32U);
  EXPECT_EQ(up(), 2U);
  target_->clear_faults();
}

class StuckLunTest : public MultipathTest {
 protected:
  // Everything at one of the two portals is taken and not answered any more, while pings are.
  void run(bool aborts_answered = true) {
    start();
    if (!aborts_answered) {
      target_->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
    }
    SimFault stuck;
    stuck.matches = [](const SimCommand& command) { return command.portal == 0; };
    stuck.count = 0;
    stuck.answer = false;
    target_->inject(stuck);
    const GuestRequest& first = write(0, 8, 1);
    const GuestRequest& second = write(8, 8, 2);
    ASSERT_TRUE(
        reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(12)));
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(answer(read(16, 8)), IoStatus::ok);
    }
    EXPECT_EQ(answer(first, seconds(60)), IoStatus::ok);
    EXPECT_EQ(answer(second, seconds(60)), IoStatus::ok);
    EXPECT_EQ(medium(0), 1);
    EXPECT_EQ(medium(8), 2);
    target_->clear_faults();
  }
};

TEST_F(StuckLunTest, ItsCommandsAreAbortedAndGoToTheOtherPath) {
  run();
  EXPECT_GE(target_->counters.aborts, 1U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  EXPECT_TRUE(wait_for_up(2));
}

TEST_F(StuckLunTest, WhereAbortDoesNotHelpTheConnectionIsDropped) {
  run(false);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
  EXPECT_TRUE(wait_for_up(2));
}

// Asynchronous Message 0 says the same as a unit attention, without a command that meets it.
TEST_F(MultipathTest, ScsiEventOfTheLunVerifiesThePathWithoutACommand) {
  for (const std::uint16_t code : {std::uint16_t{0x2a09}, std::uint16_t{0x3f0e}}) {
    if (!device_) {
      start({1});
    }
    const std::uint64_t others = lun_->counters.others;
    target_->send_scsi_event(0, SenseKey::unit_attention, code);
    reactor_.run_for(milliseconds(50));
    EXPECT_GT(lun_->counters.others, others + 3) << "the LUN was asked who it is";
    EXPECT_EQ(up(), 1U);
  }
}

TEST_F(MultipathTest, ScsiEventOfAnotherLunIsNotOurs) {
  start({1});
  const std::uint64_t others = lun_->counters.others;
  target_->send_scsi_event(3, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(lun_->counters.others, others);
}

TEST_F(MultipathTest, ScsiEventThatAnotherLunIsThereQuarantinesThePath) {
  start({1, 1});
  auto other = std::make_shared<SimLun>(SimLunOptions{.naa_extension = 99});
  target_->remove_lun(0);
  target_->add_lun(0, other);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x3f0e);
  EXPECT_TRUE(reactor_.run_until(
      [this] { return path(0).state == PathState::quarantined && up() == 0; }, seconds(2)));
}

// ---- each status and sense key, at each command of the guest's, under each no_path_retry

struct Word {
  const char* what = "";
  ScsiStatus status = ScsiStatus::check_condition;
  std::vector<std::byte> sense = {};
  // What the guest is told when the target says so for ever; ok: it waits, whatever the time.
  IoStatus told = IoStatus::ok;
  // It says so to a flush, too: what a flush is told then, with a write cache.
  IoStatus flush_told = IoStatus::ok;
};

std::vector<std::byte> by_descriptors(SenseKey key, std::uint16_t code) {
  return {std::byte{0x72},
          static_cast<std::byte>(key),
          static_cast<std::byte>(code >> 8),
          static_cast<std::byte>(code & 0xff),
          {},
          {},
          {},
          {}};
}

class StatusTest : public MultipathTest,
                   public testing::WithParamInterface<std::pair<const char*, NoPathRetry>> {
 protected:
  void SetUp() override {
    options_.no_path_retry = GetParam().second;
    start({1});
  }
  static bool is_the_guests(const SimCommand& command) {
    return is_read(command) || is_write(command) ||
           command.cdb[0] == scsi_operation::kSynchronizeCache10 ||
           command.cdb[0] == scsi_operation::kSynchronizeCache16;
  }
  void say(const Word& word, std::uint32_t count = 0) {
    SimFault fault;
    fault.matches = is_the_guests;
    fault.count = count;
    fault.status = word.status;
    fault.sense = word.sense;
    target_->inject(fault);
  }
  GuestRequest& ask(BlockOperation operation) {
    return submit(operation, 0, operation == BlockOperation::flush ? 0 : 8, 1);
  }
  // What it has learned of the LUN's commands is forgotten.
  void log_in_again() {
    reactor_.network().reset_connections(portal_address(0));
    ASSERT_TRUE(reactor_.run_until([this] { return up() == 0; }, seconds(1)));
    ASSERT_TRUE(wait_for_up(1));
  }
  static constexpr BlockOperation kOperations[] = {BlockOperation::read, BlockOperation::write,
                                                   BlockOperation::flush};
};

// "Not now", in whatever words: the guest waits, and its path stays up.
TEST_P(StatusTest, WhatPassesWithinSecondsIsSeenByNobody) {
  constexpr auto kCheck = ScsiStatus::check_condition;
  const Word kWords[] = {
      {"busy", ScsiStatus::busy},
      {"task set full", ScsiStatus::task_set_full},
      {"task aborted", ScsiStatus::task_aborted},
      {"ACA active", ScsiStatus::aca_active},
      {"busy, with sense data", ScsiStatus::busy, make_sense(SenseKey::illegal_request, 0x2000)},
      {"aborted", kCheck, make_sense(SenseKey::aborted_command, 0x0000)},
      {"aborted: message error", kCheck, make_sense(SenseKey::aborted_command, 0x4300)},
      {"aborted: data phase error", kCheck, make_sense(SenseKey::aborted_command, 0x4b00)},
      {"aborted: overlapped commands", kCheck, make_sense(SenseKey::aborted_command, 0x4e00)},
      {"aborted: too little data", kCheck, make_sense(SenseKey::aborted_command, 0x0c0d)},
      {"aborted: vendor's", kCheck, make_sense(SenseKey::aborted_command, 0xc101)},
      {"aborted, by descriptors", kCheck, by_descriptors(SenseKey::aborted_command, 0x0000)},
      {"becoming ready", kCheck, make_sense(SenseKey::not_ready, 0x0401)},
      {"becoming ready, by descriptors", kCheck, by_descriptors(SenseKey::not_ready, 0x0401)},
      {"rebuild", kCheck, make_sense(SenseKey::not_ready, 0x0405)},
      {"operation in progress", kCheck, make_sense(SenseKey::not_ready, 0x0407)},
      {"format", kCheck, make_sense(SenseKey::not_ready, 0x0404)},
      {"configuration", kCheck, make_sense(SenseKey::not_ready, 0x041d)},
      {"access transition", kCheck, make_sense(SenseKey::not_ready, 0x040a)},
      {"attention: reservations released", kCheck, make_sense(SenseKey::unit_attention, 0x2a04)},
      {"attention: log parameters", kCheck, make_sense(SenseKey::unit_attention, 0x2a02)},
      {"attention: cleared by another", kCheck, make_sense(SenseKey::unit_attention, 0x2f00)},
      {"attention: threshold", kCheck, make_sense(SenseKey::unit_attention, 0x3807)},
      {"attention: vendor's", kCheck, make_sense(SenseKey::unit_attention, 0xe000)},
      {"attention: transition", kCheck, make_sense(SenseKey::unit_attention, 0x040a)},
      {"attention: access changed", kCheck, make_sense(SenseKey::unit_attention, 0x2a06)},
  };
  for (const Word& word : kWords) {
    for (const BlockOperation operation : kOperations) {
      SCOPED_TRACE(std::string(word.what) + " at " + to_string(operation));
      say(word);
      const GuestRequest& request = ask(operation);
      reactor_.run_for(seconds(3));
      EXPECT_TRUE(pending(request)) << static_cast<int>(request.status.value_or(IoStatus::ok));
      target_->clear_faults();
      EXPECT_EQ(answer(request), IoStatus::ok);
      EXPECT_TRUE(wait_for_up(1, seconds(3)));
    }
  }
}

// The command is done, whatever is said of the health of the medium.
TEST_P(StatusTest, WhatComplainsOfNothingIsSuccess) {
  for (const SenseKey key : {SenseKey::no_sense, SenseKey::recovered_error}) {
    for (const int number : {0x0000, 0x0b01, 0x1701, 0x1801, 0x5d00, 0x0c01}) {
      const auto code = static_cast<std::uint16_t>(number);
      for (const auto& sense : {make_sense(key, code), by_descriptors(key, code)}) {
        for (const BlockOperation operation : kOperations) {
          SimFault fault;
          fault.matches = is_the_guests;
          fault.execute = true;
          fault.status = ScsiStatus::check_condition;
          fault.sense = sense;
          // The simulated target sends no data beside CHECK CONDITION.
          if (operation == BlockOperation::read) {
            continue;
          }
          target_->inject(fault);
          const GuestRequest& request = ask(operation);
          EXPECT_EQ(answer(request, milliseconds(50)), IoStatus::ok)
              << static_cast<int>(key) << std::hex << " " << code;
        }
      }
    }
  }
  EXPECT_EQ(path(0).failures, 0U);
}

// What is said of the command for good: the same answer under each policy, and soon, and the path
// stays up for all others.
TEST_P(StatusTest, WhatIsSaidOfTheCommandIsTheGuestsAtOnce) {
  const auto sense = [](SenseKey key, std::uint16_t code) { return make_sense(key, code); };
  constexpr auto kCheck = ScsiStatus::check_condition;
  const Word kWords[] = {
      {"reservation conflict",
       ScsiStatus::reservation_conflict,
       {},
       IoStatus::reservation_conflict,
       IoStatus::reservation_conflict},
      {"a status that is none",
       static_cast<ScsiStatus>(0x22),
       {},
       IoStatus::target_error,
       IoStatus::target_error},
      {"intermediate",
       static_cast<ScsiStatus>(0x10),
       {},
       IoStatus::target_error,
       IoStatus::target_error},
      {"no sense data", kCheck, {}, IoStatus::target_error, IoStatus::target_error},
      {"sense data of no format", kCheck, std::vector<std::byte>(18), IoStatus::target_error,
       IoStatus::target_error},
      {"medium error", kCheck, sense(SenseKey::medium_error, 0x1100), IoStatus::medium_error,
       IoStatus::medium_error},
      {"medium error, by descriptors", kCheck, by_descriptors(SenseKey::medium_error, 0x1100),
       IoStatus::medium_error, IoStatus::medium_error},
      {"write error", kCheck, sense(SenseKey::medium_error, 0x0c00), IoStatus::medium_error,
       IoStatus::medium_error},
      {"hardware error", kCheck, sense(SenseKey::hardware_error, 0x4400), IoStatus::target_error,
       IoStatus::target_error},
      {"hardware: no spare", kCheck, sense(SenseKey::hardware_error, 0x3200),
       IoStatus::medium_error, IoStatus::medium_error},
      {"invalid command", kCheck, sense(SenseKey::illegal_request, 0x2000), IoStatus::not_supported,
       IoStatus::not_supported},
      {"out of range", kCheck, sense(SenseKey::illegal_request, 0x2100), IoStatus::out_of_range,
       IoStatus::not_supported},
      {"invalid field", kCheck, sense(SenseKey::illegal_request, 0x2400), IoStatus::target_error,
       IoStatus::not_supported},
      {"invalid parameter", kCheck, sense(SenseKey::illegal_request, 0x2600),
       IoStatus::target_error, IoStatus::target_error},
      {"write protected", kCheck, sense(SenseKey::data_protect, 0x2700), IoStatus::write_protected,
       IoStatus::write_protected},
      {"access denied", kCheck, sense(SenseKey::data_protect, 0x2002), IoStatus::write_protected,
       IoStatus::write_protected},
      {"blank check", kCheck, sense(SenseKey::blank_check, 0x0000), IoStatus::target_error,
       IoStatus::target_error},
      {"vendor's", kCheck, sense(SenseKey::vendor_specific, 0x8000), IoStatus::target_error,
       IoStatus::target_error},
      {"copy aborted", kCheck, sense(SenseKey::copy_aborted, 0x0000), IoStatus::target_error,
       IoStatus::target_error},
      {"volume overflow", kCheck, sense(SenseKey::volume_overflow, 0x0000), IoStatus::target_error,
       IoStatus::target_error},
      {"miscompare", kCheck, sense(SenseKey::miscompare, 0x1d00), IoStatus::target_error,
       IoStatus::target_error},
      {"completed", kCheck, sense(SenseKey::completed, 0x0000), IoStatus::target_error,
       IoStatus::target_error},
      {"duration limit", kCheck, sense(SenseKey::aborted_command, 0x2e02), IoStatus::target_error,
       IoStatus::target_error},
      {"protection", kCheck, sense(SenseKey::aborted_command, 0x1003), IoStatus::target_error,
       IoStatus::target_error},
  };
  for (const Word& word : kWords) {
    for (const BlockOperation operation : kOperations) {
      SCOPED_TRACE(std::string(word.what) + " at " + to_string(operation));
      say(word);
      const GuestRequest& request = ask(operation);
      EXPECT_EQ(answer(request, milliseconds(200)),
                operation == BlockOperation::flush ? word.flush_told : word.told);
      EXPECT_EQ(up(), 1U);
      target_->clear_faults();
      log_in_again();
    }
  }
}

// The path does not serve the LUN: what becomes of the guest's request is the policy's affair.
TEST_P(StatusTest, WhatIsSaidOfThePathIsAMatterOfNoPathRetry) {
  for (const auto& [key, code] : {std::pair{SenseKey::not_ready, 0x0403},
                                  {SenseKey::not_ready, 0x0402},
                                  {SenseKey::not_ready, 0x0000},
                                  {SenseKey::not_ready, 0x3a00},
                                  {SenseKey::not_ready, 0x040b},
                                  {SenseKey::not_ready, 0x040c},
                                  {SenseKey::illegal_request, 0x2500}}) {
    for (const BlockOperation operation : kOperations) {
      SCOPED_TRACE(testing::PrintToString(code) + " at " + to_string(operation));
      SimFault fault;
      fault.count = 0;
      fault.status = ScsiStatus::check_condition;
      fault.sense = make_sense(key, static_cast<std::uint16_t>(code));
      target_->inject(fault);
      const GuestRequest& request = ask(operation);
      reactor_.run_for(seconds(3));
      EXPECT_EQ(up(), 0U);
      // A flush waits, as it may not fail.
      const NoPathRetry retry =
          operation == BlockOperation::flush ? NoPathRetry() : GetParam().second;
      if (retry == milliseconds(0)) {
        EXPECT_EQ(request.status, IoStatus::no_path);
      } else {
        EXPECT_TRUE(pending(request));
      }
      reactor_.run_for(seconds(10));
      EXPECT_EQ(pending(request), !retry.has_value());
      target_->clear_faults();
      EXPECT_EQ(answer(request), retry ? IoStatus::no_path : IoStatus::ok);
      EXPECT_TRUE(wait_for_up(1));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(NoPathRetry, StatusTest,
                         testing::Values(std::pair{"fail", NoPathRetry{milliseconds(0)}},
                                         std::pair{"ten_seconds", NoPathRetry{seconds(10)}},
                                         std::pair{"queue", NoPathRetry{}}),
                         [](const auto& test) { return std::string(test.param.first); });

}  // namespace
}  // namespace iscsi_blkback
