// What a disk sends after its guest was suspended, or after it was closed: no write.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class SuspendedDisk : public MultipathTest {
 protected:
  // Ten writes at a target that takes `window` of them at once and answers none: the others wait in
  // the session.
  void fill_the_window(std::uint32_t window,
                       const std::vector<std::uint16_t>& portal_groups = {1}) {
    target_options_.window = window;
    start(portal_groups);
    SimFault hold;
    hold.matches = [this](const SimCommand& command) {
      arrived_ += is_write(command) ? 1 : 0;
      return is_write(command);
    };
    hold.count = 0;
    hold.hold = true;
    hold.execute = true;
    target_->inject(hold);
    for (std::uint64_t at = 0; at < 10; ++at) {
      write(at * 8, 8, 1);
    }
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(arrived_, window * portal_groups.size());
  }
  // The target answers what it has, again and again, so that its window opens.
  void answer_what_is_there() {
    for (int round = 0; round < 10; ++round) {
      target_->release_held();
      reactor_.run_for(milliseconds(2));
    }
  }

  std::uint64_t arrived_ = 0;
};

TEST_F(SuspendedDisk, SendsNothingThatWaitedForTheWindowOfItsTarget) {
  fill_the_window(2);
  device_->set_guest({GuestState::suspended});
  answer_what_is_there();
  EXPECT_EQ(arrived_, 2U);
  device_->set_guest({GuestState::runs});
  target_->clear_faults();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok) << "it goes on where it was";
  }
}

TEST_F(SuspendedDisk, SendsNothingOnAPathThatIsBeingRemoved) {
  fill_the_window(2, {1, 1});
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  device_->set_guest({GuestState::suspended});
  answer_what_is_there();
  EXPECT_EQ(arrived_, 4U);
  device_->set_guest({GuestState::runs});
  target_->clear_faults();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
}

TEST_F(SuspendedDisk, ThatIsClosedSendsNothing) {
  fill_the_window(2, {1, 1});
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  answer_what_is_there();
  EXPECT_EQ(arrived_, 4U);
  target_->clear_faults();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(100)));
  device_.reset();
}

// The guest may go on elsewhere: an old write must not be executed after the newer one there.
TEST_F(SuspendedDisk, EndsWhatItsTargetDoesNotAnswer) {
  fill_the_window(2);
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(250));
  EXPECT_GE(target_->counters.terminated_tasks, 2U) << "the connection is given up, and fenced";
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 0);
  target_->clear_faults();
  device_->set_guest({GuestState::runs});
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
}

TEST_F(SuspendedDisk, EndsWhatTheTargetOfARemovedPathDoesNotAnswer) {
  fill_the_window(2, {1, 1});
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
  EXPECT_EQ(sessions_[1]->statistics().connection_losses, 1U);
  target_->clear_faults();
  device_->set_guest({GuestState::runs});
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
}

TEST_F(SuspendedDisk, GivesASilentPathUpAtOnce) {
  start({1});
  drop_silently(0);
  GuestRequest& silent = write(0, 8, 1);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).suspect; }, seconds(5)));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
  reactor_.network().set_dropping(portal_address(0), false);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(silent), IoStatus::ok);
}

TEST_F(SuspendedDisk, KeepsTheConnectionOfAPathThatOnlyReads) {
  start({1});
  SimFault hold;
  hold.matches = any_io();
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  GuestRequest& asked = read(0, 8);
  reactor_.run_for(milliseconds(10));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(150));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  target_->release_held();
  EXPECT_EQ(answer(asked), IoStatus::ok);
}

TEST_F(SuspendedDisk, ThatGoesOnInAMomentKeepsItsConnections) {
  fill_the_window(2);
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(20));
  device_->set_guest({GuestState::runs});
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  target_->clear_faults();
  target_->release_held();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
}

// --- no_path_retry

class SuspendedWithoutPath : public SuspendedDisk, public testing::WithParamInterface<GuestState> {
 protected:
  // A write that is lost with the only path, after the guest has been suspended.
  GuestRequest& lost_within_the_suspend() {
    hold_writes_at(0);
    GuestRequest& lost = write(0, 8, 1);
    reactor_.run_for(milliseconds(5));
    device_->set_guest({GetParam()});
    cut(0);
    target_->clear_faults();
    return lost;
  }
  void start_with(NoPathRetry wait) {
    options_.no_path_retry = wait;
    start({1});
  }
};
INSTANTIATE_TEST_SUITE_P(States, SuspendedWithoutPath,
                         testing::Values(GuestState::suspended, GuestState::in_doubt),
                         [](const auto& each) {
                           return each.param == GuestState::in_doubt ? "InDoubt" : "Suspended";
                         });

TEST_P(SuspendedWithoutPath, TellsTheGuestNothingOfAnOutageThatIsOverWhenItGoesOn) {
  for (const auto wait : {seconds(0), seconds(10)}) {
    SCOPED_TRACE(wait.count());
    if (!device_) {
      start_with(NoPathRetry{wait});
    } else {
      device_->set_no_path_retry(NoPathRetry{wait});
    }
    GuestRequest& lost = lost_within_the_suspend();
    reactor_.run_for(seconds(15));
    EXPECT_TRUE(device_->snapshot().queueing);
    restore(0);
    ASSERT_TRUE(wait_for_up(1));
    device_->set_guest({GuestState::runs});
    EXPECT_EQ(answer(lost, seconds(5)), IoStatus::ok);
    EXPECT_EQ(device_->snapshot().queue_timeouts, 0U);
  }
}

TEST_P(SuspendedWithoutPath, ThatGoesOnWithoutPathWaitsForNoPathRetryFromThenOn) {
  start_with(NoPathRetry{seconds(10)});
  GuestRequest& lost = lost_within_the_suspend();
  reactor_.run_for(seconds(3600));
  EXPECT_TRUE(pending(lost));
  device_->set_guest({GuestState::runs});
  reactor_.run_for(milliseconds(9900));
  EXPECT_TRUE(pending(lost));
  reactor_.run_for(milliseconds(200));
  EXPECT_FALSE(pending(lost));
  EXPECT_EQ(lost.status, IoStatus::no_path);
}

TEST_P(SuspendedWithoutPath, WaitsWhateverNoPathRetryIsSetTo) {
  start_with(std::nullopt);
  GuestRequest& lost = lost_within_the_suspend();
  reactor_.run_for(seconds(1));
  device_->set_no_path_retry(NoPathRetry{seconds(0)});
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(lost));
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(lost, milliseconds(1)), IoStatus::no_path);
}

// Suspended, the disk may not have the array serve the LUN at the standby side.
TEST_P(SuspendedWithoutPath, HasTheStandbySideActivatedBeforeItFails) {
  lun_options_.tpgs = 2;
  lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
                              {.tag = 2, .state = AccessState::standby, .ports = {2}}};
  options_.no_path_retry = NoPathRetry{seconds(10)};
  start_target({1, 2});
  start_device(false);
  reactor_.run_for(seconds(1));
  ASSERT_EQ(up(), 1U);
  GuestRequest& lost = lost_within_the_suspend();
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(pending(lost));
  EXPECT_EQ(up(), 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(lost, seconds(5)), IoStatus::ok);
}

class SuspendInAnOutage : public SuspendedDisk {
 protected:
  GuestRequest& lost_with_no_path_retry(seconds wait) {
    options_.no_path_retry = NoPathRetry{wait};
    start({1});
    cut(0);
    GuestRequest& lost = write(0, 8, 1);
    return lost;
  }
};

TEST_F(SuspendInAnOutage, BeginsItsTimeAnew) {
  GuestRequest& lost = lost_with_no_path_retry(seconds(10));
  reactor_.run_for(seconds(9));
  device_->set_guest({GuestState::in_doubt});
  reactor_.run_for(seconds(1));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(60));
  device_->set_guest({GuestState::runs});
  reactor_.run_for(milliseconds(9900));
  EXPECT_TRUE(pending(lost));
  EXPECT_EQ(answer(lost, seconds(1)), IoStatus::no_path);
}

// Or a host that cannot ask Xen now and then would keep its guests waiting for ever.
TEST_F(SuspendInAnOutage, ThatIsOnlyADoubtLeavesWhatIsLeftOfItsTime) {
  GuestRequest& lost = lost_with_no_path_retry(seconds(10));
  for (int doubt = 0; doubt < 4; ++doubt) {
    reactor_.run_for(seconds(2));
    device_->set_guest({GuestState::in_doubt});
    reactor_.run_for(seconds(30));
    EXPECT_TRUE(pending(lost));
    device_->set_guest({GuestState::runs});
  }
  reactor_.run_for(milliseconds(1800));
  EXPECT_TRUE(pending(lost));
  EXPECT_EQ(answer(lost, milliseconds(400)), IoStatus::no_path);
}

TEST_F(SuspendInAnOutage, ThatHasFailedRequestsAlreadyGoesOnFailingThem) {
  EXPECT_EQ(answer(lost_with_no_path_retry(seconds(2))), IoStatus::no_path);
  device_->set_guest({GuestState::suspended});
  const GuestRequest& late = write(0, 8, 2);  // it was in the ring before
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(late));
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(late, milliseconds(10)), IoStatus::no_path);
  EXPECT_EQ(answer(write(0, 8, 3), milliseconds(10)), IoStatus::no_path);
}

}  // namespace
}  // namespace iscsi_blkback
