// Lost writes are fenced by LOGICAL UNIT RESET through another path, in virtual time, at a target
// that executes old writes late.
#include "tests/multipath/fencing/lun_fence_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(LunFenceTest, AResetFencesWhenWhatWasLostHasSettled) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(milliseconds(4700));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(answer(second, milliseconds(500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  EXPECT_EQ(target_->counters.aborted_tasks, 1U);
  expect_fenced();
}

TEST_F(LunFenceTest, WithoutAnExclusiveLunNothingIsReset) {
  start_apart(false);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(seconds(59));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok) << "quiesce_time";
}

TEST_F(LunFenceTest, ASettleTimeAsLongAsTheQuiesceTimeIsNoFence) {
  options_.fence_settle_time = options_.quiesce_time = seconds(8);
  start_apart(true);
  GuestRequest& second = lose_a_write();
  EXPECT_EQ(answer(second, seconds(9)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 0U);
}

// What the network still holds when the path is given up becomes a command after that, which a
// reset that had been sent at once would not have reached.
TEST_F(LunFenceTest, BytesThatArriveLateAreFencedToo) {
  start_apart(true);
  hold_next_write_at(0);
  reactor_.network().set_reset_policy(portal_address(0), SimResetPolicy::everything);
  reactor_.network().set_held(portal_address(0), SimDirection::to_server, true);
  GuestRequest& first = write_until_one_stays();
  EXPECT_EQ(target_->held(), 0U) << "it is in the network";
  reactor_.network().set_refusing(portal_address(0), true);
  EXPECT_EQ(answer(first, seconds(3)), IoStatus::ok) << "path_timeout";
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(4));
  reactor_.network().set_held(portal_address(0), SimDirection::to_server, false);
  reactor_.run_for(milliseconds(500));
  EXPECT_EQ(target_->held(), 1U) << "now it is the target's";
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(answer(second, seconds(1)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  expect_fenced();
}

TEST_F(LunFenceTest, WhereNobodyWaitsNothingIsReset) {
  start_apart(true);
  lose_a_write_only();
  EXPECT_EQ(answer(write(100, 8, 2)), IoStatus::ok);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(500)), IoStatus::ok) << "long settled";
  EXPECT_EQ(target_->counters.resets, 1U);
}

// A reset ends everybody's commands: our own have ended before it is sent, and new ones wait for
// its answer.
TEST_F(LunFenceTest, AResetEndsNoCommandOfOurOwn) {
  target_options_.command_delay = milliseconds(40);
  target_options_.command_jitter = milliseconds(20);
  start_apart(true);
  GuestRequest& second = lose_a_write();
  for (int i = 0; pending(second) && i < 1000; ++i) {
    read(100 + static_cast<std::uint64_t>(i % 64) * 8, 8);
    reactor_.run_for(milliseconds(10));
  }
  ASSERT_FALSE(pending(second));
  reactor_.run_for(seconds(1));
  for (const auto& request : requests_) {
    EXPECT_EQ(request->status, IoStatus::ok);
    if (request.get() != &second) {
      EXPECT_LE(request->took(), milliseconds(200));
    }
  }
  EXPECT_EQ(target_->counters.resets, 1U);
  EXPECT_EQ(target_->counters.aborted_tasks, 1U) << "the lost one";
  expect_fenced();
}

TEST_F(LunFenceTest, TheUnitAttentionOfAResetDisturbsNobody) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  EXPECT_EQ(answer(second, seconds(6)), IoStatus::ok);
  target_->add_unit_attention(0x2903);
  EXPECT_EQ(answer(read(0, 8), milliseconds(200)), IoStatus::ok);
}

TEST_F(LunFenceTest, AResetThatIsRefusedIsNoFence) {
  start_apart(true);
  SimFunctionFault refused;
  refused.execute = false;
  refused.response = 255;
  target_->fault_functions(TaskFunction::logical_unit_reset, refused);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(pending(second));
  target_->fault_functions(TaskFunction::logical_unit_reset, std::nullopt);
  EXPECT_EQ(answer(second, seconds(17)), IoStatus::ok) << "tried again";
  expect_fenced();
}

// Two writes, lost at two portals one after the other; newer ones wait for each of them.
class TwoLostWritesTest : public LunFenceTest {
 protected:
  // The second one is lost so long after the first.
  void lose_two(Duration apart) {
    options_.exclusive_luns = true;
    start({1, 2, 3});
    lose_at(0, 0);
    newer_ = &write(0, 8, 2);
    reactor_.run_for(apart);
    lose_at(1, 100);
    newest_ = &write(100, 8, 2);
  }
  void lose_at(std::size_t portal, std::uint64_t sector) {
    hold_next_write_at(portal);
    GuestRequest& request = at_path(portal, [&]() -> GuestRequest& { return write(sector, 8, 1); });
    reactor_.run_for(milliseconds(10));
    ASSERT_TRUE(pending(request));
    refuse(portal);
    EXPECT_EQ(answer(request, milliseconds(100)), IoStatus::ok);
  }

  GuestRequest* newer_ = nullptr;
  GuestRequest* newest_ = nullptr;
};

// Only what had settled when the reset was sent is fenced by it.
TEST_F(TwoLostWritesTest, TheLaterOneWaitsForAResetOfItsOwn) {
  lose_two(seconds(4));
  EXPECT_EQ(answer(*newer_, milliseconds(1500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(*newest_)) << "lost a second before that reset";
  EXPECT_EQ(answer(*newest_, milliseconds(1500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 2U);
  expect_fenced();
}

// It has settled by the time the answer comes, but what it was sent by may have been on its way
// when the target executed the reset.
TEST_F(TwoLostWritesTest, AnAnswerThatComesLateFencesWhatHadSettledWhenItWasSent) {
  lose_two(seconds(4));
  SimFunctionFault slow;
  slow.delay = seconds(6);
  target_->fault_functions(TaskFunction::logical_unit_reset, slow);
  reactor_.run_for(seconds(2));
  target_->fault_functions(TaskFunction::logical_unit_reset, std::nullopt);
  const TimePoint settled = reactor_.now() + seconds(3);
  ASSERT_TRUE(pending(*newer_)) << "the reset is being waited for";
  EXPECT_EQ(answer(*newer_, seconds(6)), IoStatus::ok);
  EXPECT_GE(reactor_.now(), settled);
  EXPECT_EQ(answer(*newest_, seconds(1)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 2U) << "it has waited for one of its own";
  expect_fenced();
}

TEST_F(LunFenceTest, CloseWaitsForTheResetAndNoLonger) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  reactor_.run_for(milliseconds(4700));
  EXPECT_FALSE(closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, milliseconds(500)));
  EXPECT_EQ(second.status, IoStatus::aborted);
  EXPECT_EQ(target_->counters.resets, 1U);
  device_.reset();
  expect_fenced(1);
}

TEST_F(LunFenceTest, APathThatIsRemovedDoesNotWaitForAReset) {
  start_target({1, 2, 3});
  options_.exclusive_luns = true;
  start_device();
  SimFunctionFault unanswered;
  unanswered.answer = false;
  target_->fault_functions(TaskFunction::logical_unit_reset, unanswered);
  lose_a_write();
  reactor_.run_for(seconds(6));
  ASSERT_TRUE(device_->remove_path(*sessions_[1], 0));
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(device_->snapshot().leaving, 0U);
  EXPECT_EQ(sessions_[1]->statistics().connection_losses, 0U);
}

TEST_F(LunFenceTest, ADiskThatIsClosedDoesNotWaitForAReset) {
  start_apart(true);
  SimFunctionFault unanswered;
  unanswered.answer = false;
  target_->fault_functions(TaskFunction::logical_unit_reset, unanswered);
  lose_a_write();
  reactor_.run_for(seconds(6));
  const TimePoint began = reactor_.now();
  close();
  EXPECT_LE(reactor_.now() - began, milliseconds(10));
  EXPECT_EQ(sessions_[1]->statistics().connection_losses, 0U);
}

// --- a guest that does not overlap

// It hardly notices the fence, whatever becomes of that.
class BystanderTest : public LunFenceTest {
 protected:
  // Requests all the time; returns how many took longer than that.
  std::size_t run_bystander(Duration during, Duration at_most) {
    const std::size_t first = requests_.size();
    const TimePoint until = reactor_.now() + during;
    for (std::uint64_t i = 0; reactor_.now() < until; ++i) {
      if (i % 2 == 0) {
        read(100 + i % 64 * 8, 8);
      } else {
        write(100 + i % 64 * 8, 8, 3);
      }
      reactor_.run_for(milliseconds(10));
    }
    std::size_t longer = 0;
    for (std::size_t i = first; i < requests_.size(); ++i) {
      EXPECT_EQ(answer(*requests_[i]), IoStatus::ok);
      longer += requests_[i]->took() > at_most ? 1 : 0;
    }
    return longer;
  }
  // The target executes the reset long after it has received it, and with that ends what it has
  // received since, without an answer.
  GuestRequest& lose_a_write_to_a_late_reset() {
    target_options_.command_delay = milliseconds(15);
    start_apart(true);
    SimFunctionFault late;
    late.delay = seconds(3);
    target_->fault_functions(TaskFunction::logical_unit_reset, late);
    GuestRequest& second = lose_a_write();
    reactor_.run_for(seconds(5));
    return second;
  }
};

TEST_F(BystanderTest, WaitsForAnUnansweredResetAFifthOfASecond) {
  start_apart(true);
  SimFunctionFault unanswered;
  unanswered.answer = false;
  target_->fault_functions(TaskFunction::logical_unit_reset, unanswered);
  GuestRequest& second = lose_a_write();
  EXPECT_EQ(run_bystander(seconds(50), milliseconds(210)), 0U);
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(sessions_[1]->statistics().connection_losses, 0U) << "it is healthy";
  EXPECT_EQ(answer(second, seconds(15)), IoStatus::ok) << "quiesce_time";
}

// One slow command after the other.
TEST_F(BystanderTest, WaitsForABusyPathAFifthOfASecondNowAndThen) {
  start_apart(true);
  SimFault slow;
  slow.matches = [](const SimCommand& command) {
    return is_read(command) && command.expected_bytes == 16 * kSectorBytes;
  };
  slow.count = 0;
  slow.execute = true;
  slow.extra_delay = milliseconds(700);
  target_->inject(slow);
  GuestRequest& second = lose_a_write();
  std::size_t longer = 0;
  for (int i = 0; i < 100; ++i) {
    read(1000, 16);
    longer += run_bystander(milliseconds(500), milliseconds(20)) > 10 ? 1 : 0;
  }
  EXPECT_LE(longer, 10U) << "the tries are further and further apart";
  for (const auto& request : requests_) {
    if (request.get() != &second && request->block.sector_count == 8) {
      EXPECT_LE(request->took(), milliseconds(210));
    }
  }
  EXPECT_EQ(target_->counters.resets, 0U);
}

TEST_F(BystanderTest, LosesNothingToAResetThatIsExecutedLate) {
  session_options_.command_timeout = seconds(8);
  session_options_.abort_timeout = seconds(1);
  GuestRequest& second = lose_a_write_to_a_late_reset();
  reactor_.schedule(seconds(3), [this] {
    target_->fault_functions(TaskFunction::logical_unit_reset, std::nullopt);
  });
  EXPECT_LE(run_bystander(seconds(4), milliseconds(230)), 5U) << "those that it ends";
  EXPECT_GT(target_->counters.aborted_tasks, 1U);
  EXPECT_EQ(second.status, IoStatus::ok);
  for (const auto& request : requests_) {
    if (request.get() != &second) {
      EXPECT_LE(request->took(), seconds(4)) << "in place of command_timeout and more";
    }
  }
  expect_fenced();
}

// Nothing else would find those that it ends.
TEST_F(BystanderTest, WithoutACommandTimeoutLosesNothingToAResetThatIsExecutedLate) {
  session_options_.command_timeout = seconds(0);
  GuestRequest& second = lose_a_write_to_a_late_reset();
  run_bystander(seconds(4), milliseconds(230));
  EXPECT_GT(target_->counters.aborted_tasks, 1U);
  EXPECT_EQ(answer(second), IoStatus::ok);
  expect_fenced();
}

// A reset ends what other paths have at the LUN, without an answer. When that is aborted for it,
// the target knows it no more: a reset for that would end what the first path has there by then.
TEST_F(BystanderTest, AResetForOneStuckCommandIsTheOnlyOne) {
  session_options_.command_timeout = seconds(8);
  session_options_.abort_timeout = seconds(1);
  target_options_.command_delay = milliseconds(15);
  options_.exclusive_luns = true;
  start({1, 1});
  target_->fault_functions(TaskFunction::abort_task,
                           SimFunctionFault{.execute = false, .response = 5});
  SimFault stuck;
  stuck.matches = io_at(0);
  stuck.answer = false;
  target_->inject(stuck);
  reactor_.schedule(seconds(10), [this] {
    EXPECT_EQ(target_->counters.resets, 1U);
    target_->fault_functions(TaskFunction::abort_task, std::nullopt);
  });
  run_bystander(seconds(60), seconds(10));
  EXPECT_GT(target_->counters.aborted_tasks, 1U) << "those at the other path";
  EXPECT_EQ(target_->counters.resets, 1U);
}

// --- the source of a migration: the guest runs elsewhere by then

TEST_F(LunFenceTest, ASuspendedDiskIsNotReset) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(20));
  EXPECT_EQ(target_->counters.resets, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(second, milliseconds(500)), IoStatus::ok) << "it was not migrated after all";
  EXPECT_EQ(target_->counters.resets, 1U);
  expect_fenced();
}

TEST_F(LunFenceTest, ASuspendedDiskThatIsClosedIsNotReset) {
  start_apart(true);
  lose_a_write();
  device_->set_guest({GuestState::suspended});
  const TimePoint began = reactor_.now();
  close(true);
  EXPECT_GE(reactor_.now() - began, seconds(59)) << "quiesce_time";
  EXPECT_EQ(target_->counters.resets, 0U);
}

// Its requests were let finish for the reset when it was suspended.
TEST_F(LunFenceTest, ADiskThatIsSuspendedJustBeforeTheResetIsNotReset) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(milliseconds(4900));
  SimFault slow;
  slow.matches = io_at(1);
  slow.execute = true;
  slow.extra_delay = milliseconds(190);
  target_->inject(slow);
  GuestRequest& beside = read(100, 8);
  reactor_.run_for(milliseconds(180));
  EXPECT_TRUE(pending(beside));
  EXPECT_EQ(target_->counters.resets, 0U);
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(20));
  EXPECT_EQ(beside.status, IoStatus::ok);
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.resets, 0U);
}

// Its requests pause for the reset, and what is outstanding is just being let finish.
TEST_F(LunFenceTest, ADiskThatIsSuspendedWhileItPausesForTheResetIsNotReset) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(milliseconds(4900));
  SimFault slow;
  slow.matches = io_at(1);
  slow.count = 0;
  slow.execute = true;
  slow.extra_delay = milliseconds(50);
  target_->inject(slow);
  for (std::uint64_t at = 100; device_->snapshot().queued == 0; at += 8) {
    ASSERT_LT(at, 1000U);
    read(at, 8);
    reactor_.run_for(milliseconds(5));
  }
  ASSERT_EQ(target_->counters.resets, 0U);
  ASSERT_NE(path(1).in_flight, 0U);
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(20));
  EXPECT_EQ(path(1).in_flight, 0U);
  EXPECT_EQ(target_->counters.resets, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(second), IoStatus::ok);
}

// A command that is stuck there, and cannot be aborted.
TEST_F(LunFenceTest, AStuckCommandOfASuspendedDiskIsNoReasonForAReset) {
  session_options_.command_timeout = seconds(5);
  session_options_.abort_timeout = seconds(2);
  options_.exclusive_luns = true;
  start({1});
  SimFault never;
  never.matches = writes_at(0);
  never.answer = false;
  target_->inject(never);
  SimFunctionFault unanswered;
  unanswered.answer = false;
  target_->fault_functions(TaskFunction::abort_task, unanswered);
  GuestRequest& stuck = write(0, 8, 1);
  reactor_.run_for(seconds(1));
  device_->set_guest({GuestState::suspended});
  EXPECT_TRUE(reactor_.run_until(
      [this] { return sessions_[0]->statistics().connection_losses == 1; }, seconds(20)));
  EXPECT_EQ(target_->counters.resets, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(stuck, seconds(5)), IoStatus::ok);
}

}  // namespace
}  // namespace iscsi_blkback
