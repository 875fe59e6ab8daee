// Lost writes are fenced by a command of the logical unit through another path, in virtual time, at
// a target that executes old writes late.
#include <gmock/gmock.h>

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class LunFenceTest : public MultipathTest {
 protected:
  LunFenceTest() {
    options_.fence_settle_time = seconds(5);
    options_.quiesce_time = seconds(60);
  }

  // Portals in groups of their own, so that nobody else can fence.
  void start_apart(bool exclusive) {
    session_options_.exclusive_luns = exclusive;
    start({1, 2});
    reactor_.run_for(milliseconds(10));
  }

  void hold_next_write_at_portal_0() {
    SimFault fault;
    fault.matches = writes_at(0);
    fault.hold = true;
    fault.execute = true;
    target_->inject(fault);
  }
  // Writes until one of them, which is 1, stays at portal 0 or on its way there.
  GuestRequest& write_until_one_stays() {
    while (true) {
      GuestRequest& request = write(0, 8, 1);
      if (!reactor_.run_until([&] { return !pending(request); }, milliseconds(100))) {
        return request;
      }
    }
  }
  // A write that portal 0 keeps, lost there and answered at portal 1.
  void lose_a_write_only() {
    hold_next_write_at_portal_0();
    GuestRequest& first = write_until_one_stays();
    EXPECT_EQ(target_->held(), 1U);
    refuse(0);
    EXPECT_EQ(answer(first, milliseconds(200)), IoStatus::ok);
  }
  // And a newer one that waits.
  GuestRequest& lose_a_write() {
    lose_a_write_only();
    return write(0, 8, 2);
  }
  // The old write does nothing any more.
  void expect_fenced(int newest = 2) {
    target_->release_held();
    reactor_.run_for(seconds(1));
    EXPECT_EQ(target_->counters.executed_after_close, 0U);
    EXPECT_EQ(medium(0), newest);
  }
};

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
  hold_next_write_at_portal_0();
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
  EXPECT_EQ(answer(second, seconds(5)), IoStatus::ok) << "tried again";
  expect_fenced();
}

// Only what had settled when the reset was sent is fenced by it.
TEST_F(LunFenceTest, AWriteThatIsLostLaterWaitsForAResetOfItsOwn) {
  start_apart(true);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(seconds(3));
  accept(0);
  ASSERT_TRUE(wait_for_up(2)) << "its own login fences the first one";
  EXPECT_EQ(answer(second, seconds(1)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 0U);
  GuestRequest& third = lose_a_write();
  reactor_.run_for(seconds(4));
  EXPECT_TRUE(pending(third));
  EXPECT_EQ(answer(third, milliseconds(1500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
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

// --- PREEMPT AND ABORT

class PreemptTest : public LunFenceTest {
 protected:
  PreemptTest() { options_.reservation_key = 0x5a00000000000000; }
};

TEST_F(PreemptTest, EachPathRegistersItsOwnKey) {
  start_apart(false);
  EXPECT_THAT(target_->keys(0),
              testing::UnorderedElementsAre(0x5a00800000010001, 0x5a00800000010002));
}

TEST_F(PreemptTest, PreemptAndAbortFencesWhenWhatWasLostHasSettled) {
  start_apart(false);
  GuestRequest& second = lose_a_write();
  GuestRequest& beside = read(100, 8);
  EXPECT_EQ(answer(beside, milliseconds(50)), IoStatus::ok);
  reactor_.run_for(milliseconds(4600));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.preemptions, 0U);
  EXPECT_EQ(answer(second, milliseconds(600)), IoStatus::ok);
  EXPECT_EQ(target_->counters.preemptions, 1U);
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(target_->counters.aborted_tasks, 1U);
  EXPECT_THAT(target_->keys(0), testing::ElementsAre(0x5a00800000010002));
  expect_fenced();

  accept(0);
  ASSERT_TRUE(wait_for_up(2));
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->keys(0).size(), 2U) << "the path that is back registers again";
}

// No command of another path is ended, so that none is waited for.
TEST_F(PreemptTest, CommandsOfOtherPathsGoOn) {
  start_apart(false);
  GuestRequest& second = lose_a_write();
  SimFault slow;
  slow.matches = io_at(1);
  slow.execute = true;
  slow.hold = true;
  reactor_.run_for(milliseconds(4880));
  target_->inject(slow);
  GuestRequest& beside = read(100, 8);
  ASSERT_TRUE(reactor_.run_until([&] { return target_->held() == 2; }, seconds(1)));
  EXPECT_TRUE(reactor_.run_until([&] { return target_->counters.preemptions == 1; }, seconds(1)));
  EXPECT_EQ(answer(second, milliseconds(100)), IoStatus::ok);
  EXPECT_TRUE(pending(beside));
  target_->release_held();
  EXPECT_EQ(answer(beside, seconds(1)), IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
}

TEST_F(PreemptTest, ATargetThatHasLostItsKeysIsGivenThemAgain) {
  start_apart(false);
  target_->forget_keys();
  GuestRequest& second = lose_a_write();
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(second)) << "the lost path's key is not known, so that nothing was ended";
  EXPECT_EQ(target_->counters.preemptions, 0U);
  EXPECT_THAT(target_->keys(0), testing::ElementsAre(0x5a00800000010002));
  EXPECT_EQ(answer(second, seconds(60)), IoStatus::ok) << "quiesce_time";
}

// The target executes the command that takes the key of a removed path back when the path has been
// added again.
class LateReturnTest : public PreemptTest {
 protected:
  void remove_and_add_with_late_return(std::size_t portal) {
    start_apart(false);
    SimFault late;
    late.matches = [portal](const SimCommand& command) {
      return command.portal == portal && command.cdb[0] == scsi_operation::kPersistentReserveOut;
    };
    late.hold = true;
    late.execute = true;
    target_->inject(late);
    ASSERT_TRUE(device_->remove_path(*sessions_[portal], 0));
    ASSERT_TRUE(reactor_.run_until([this] { return device_->snapshot().leaving == 0; }));
    ASSERT_TRUE(device_->add_path(*sessions_[portal], 0));
    ASSERT_TRUE(wait_for_up(2));
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(target_->keys(0).size(), 2U);
    target_->release_held();
    reactor_.run_for(milliseconds(20));
  }
};

TEST_F(LateReturnTest, ThePathRegistersAnewAndItsLostWritesAreFenced) {
  remove_and_add_with_late_return(0);
  EXPECT_EQ(target_->keys(0).size(), 2U);
  EXPECT_EQ(answer(lose_a_write(), milliseconds(5500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.preemptions, 1U);
  expect_fenced();
}

TEST_F(LateReturnTest, ThePathRegistersAnewAndCarriesFences) {
  remove_and_add_with_late_return(1);
  EXPECT_EQ(target_->keys(0).size(), 2U);
  EXPECT_EQ(answer(lose_a_write(), milliseconds(5500)), IoStatus::ok);
  EXPECT_EQ(target_->counters.preemptions, 1U);
  expect_fenced();
}

// Where the target has lost the key of the path that is to carry the fence, for whatever reason, it
// refuses, is given it again, and is asked once more.
TEST_F(PreemptTest, ARefusedPreemptionIsRepeatedWhenTheKeyIsRegisteredAgain) {
  start_apart(false);
  SimFault refused;
  refused.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kPersistentReserveOut;
  };
  refused.status = ScsiStatus::reservation_conflict;
  target_->inject(refused);
  GuestRequest& second = lose_a_write();
  EXPECT_EQ(answer(second, seconds(8)), IoStatus::ok) << "long before quiesce_time";
  EXPECT_EQ(target_->counters.preemptions, 1U);
  expect_fenced();
}

TEST_F(PreemptTest, ATargetWithoutPersistentReservationsServesTheDiskAllTheSame) {
  SimFault unknown;
  unknown.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kPersistentReserveOut;
  };
  unknown.count = 0;
  unknown.status = ScsiStatus::check_condition;
  unknown.sense = make_sense(SenseKey::illegal_request, 0x2000);
  start_target({1, 2});
  target_->inject(unknown);
  start_device();
  EXPECT_EQ(up(), 2U);
  GuestRequest& second = lose_a_write();
  reactor_.run_for(seconds(59));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok) << "quiesce_time";
}

TEST_F(PreemptTest, CloseWaitsForThePreemption) {
  start_apart(false);
  lose_a_write();
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  reactor_.run_for(milliseconds(4700));
  EXPECT_FALSE(closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, milliseconds(500)));
  EXPECT_EQ(target_->counters.preemptions, 1U);
  device_.reset();
  expect_fenced(1);
}

}  // namespace
}  // namespace iscsi_blkback
