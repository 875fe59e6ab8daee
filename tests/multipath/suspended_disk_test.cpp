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

}  // namespace
}  // namespace iscsi_blkback
