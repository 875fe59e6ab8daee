// Lost writes are fenced by PREEMPT AND ABORT through another path, in virtual time, at a target
// that executes old writes late.
#include <gmock/gmock.h>

#include "tests/multipath/fencing/lun_fence_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(PreemptTest, EachPathRegistersItsOwnKey) {
  start_apart(false);
  EXPECT_THAT(target_->keys(0),
              testing::UnorderedElementsAre(0x5a00000000010001, 0x5a00000000010002));
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
  EXPECT_THAT(target_->keys(0), testing::ElementsAre(0x5a00000000010002));
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
  EXPECT_THAT(target_->keys(0), testing::ElementsAre(0x5a00000000010002));
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

// --- the lost path is back while the preemption is outstanding, which would end its commands

class SlowPreemptTest : public PreemptTest {
 protected:
  // The preemption through portal 1 has been sent, and is executed so much later; the path of
  // portal 0 is back.
  void come_back_during_preemption(Duration takes, Duration next_registration_takes = {},
                                   bool is_removed = false) {
    options_.path_selector = PathSelectorKind::round_robin;
    options_.path_grouping_policy = PathGroupingPolicy::multibus;
    start_apart(false);
    SimFault slow;
    slow.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kPersistentReserveOut && command.portal == 1;
    };
    slow.extra_delay = takes;
    lose_a_write();
    target_->inject(slow);
    const std::uint64_t before = lun_->counters.others;
    reactor_.run_for(milliseconds(5150));
    EXPECT_EQ(target_->counters.preemptions, 0U);
    slow.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kPersistentReserveOut && command.portal == 0;
    };
    slow.extra_delay = next_registration_takes;
    target_->inject(slow);
    if (is_removed) {
      ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
    }
    accept(0);
    EXPECT_TRUE(reactor_.run_until(
        [this] { return sessions_[0]->state() == SessionState::logged_in; }, seconds(3)));
    EXPECT_TRUE(is_removed || wait_for_up(2, seconds(3)));
    EXPECT_TRUE(is_removed || lun_->counters.others > before);
  }
  // Requests all the time; none takes longer than that.
  void expect_prompt_answers(Duration during) {
    const std::size_t first = requests_.size();
    const TimePoint until = reactor_.now() + during;
    for (std::uint64_t i = 0; reactor_.now() < until; ++i) {
      read(100 + i % 64 * 8, 8);
      write(700 + i % 64 * 8, 8, 3);
      reactor_.run_for(milliseconds(10));
    }
    reactor_.run_for(milliseconds(100));
    for (std::size_t i = first; i < requests_.size(); ++i) {
      EXPECT_EQ(requests_[i]->status, IoStatus::ok);
      EXPECT_LE(requests_[i]->took(), milliseconds(50));
    }
  }
};

TEST_F(SlowPreemptTest, APathThatIsBackTakesNothingUntilThePreemptionHasEnded) {
  target_options_.command_delay = milliseconds(20);  // so that there is something to be ended
  come_back_during_preemption(seconds(3));
  const std::uint64_t before = path(0).requests;
  expect_prompt_answers(milliseconds(500));
  EXPECT_EQ(path(0).requests, before);
  expect_prompt_answers(seconds(4));
  EXPECT_EQ(target_->counters.preemptions, 1U);
  EXPECT_GT(path(0).requests, before) << "it is used again";
  EXPECT_EQ(target_->keys(0).size(), 2U) << "and has its key again";
  expect_fenced();
}

// Otherwise the preemption would take a key of which nobody knows then that it is to be given back.
TEST_F(SlowPreemptTest, APathThatIsBackRegistersAfterThePreemption) {
  come_back_during_preemption(seconds(3), seconds(5));
  ASSERT_TRUE(
      reactor_.run_until([this] { return target_->counters.preemptions == 1; }, seconds(5)));
  EXPECT_THAT(target_->keys(0), testing::ElementsAre(0x5a00000000010002));
  reactor_.run_for(seconds(6));
  EXPECT_EQ(target_->keys(0).size(), 2U);
  close();
  EXPECT_THAT(target_->keys(0), testing::IsEmpty());
}

TEST_F(SlowPreemptTest, APreemptionThatIsNotAnsweredKeepsNoPathAwayForLong) {
  come_back_during_preemption(seconds(25));
  const std::uint64_t before = path(0).requests;
  reactor_.run_for(seconds(5));
  expect_prompt_answers(seconds(1));
  EXPECT_GT(path(0).requests, before);
  EXPECT_EQ(target_->counters.preemptions, 0U);
}

// Its login has fenced what it had lost, but the preemption still concerns its key.
TEST_F(SlowPreemptTest, APathThatIsRemovedStaysUntilThePreemptionOfItHasEnded) {
  come_back_during_preemption(seconds(3), {}, true);
  reactor_.run_for(milliseconds(500));
  EXPECT_EQ(device_->snapshot().leaving, 1U);
  ASSERT_TRUE(
      reactor_.run_until([this] { return target_->counters.preemptions == 1; }, seconds(3)));
  EXPECT_TRUE(
      reactor_.run_until([this] { return device_->snapshot().leaving == 0; }, milliseconds(100)));
}

// What it waits for may be the only other path.
TEST_F(SlowPreemptTest, APathThatIsBackIsUsedWhenTheOtherOneIsLost) {
  come_back_during_preemption(seconds(3));
  refuse(1);
  GuestRequest& next = read(0, 8);
  EXPECT_EQ(answer(next, milliseconds(50)), IoStatus::ok);
}

// It concerns the lost nexus alone, whoever uses the LUN by then.
TEST_F(PreemptTest, ASuspendedDiskThatIsClosedPreempts) {
  start_apart(false);
  lose_a_write();
  device_->set_guest({GuestState::suspended});
  const TimePoint began = reactor_.now();
  close(true);
  EXPECT_LE(reactor_.now() - began, seconds(6));
  EXPECT_EQ(target_->counters.preemptions, 1U);
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
