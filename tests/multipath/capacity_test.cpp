// What a LUN says of its capacity and its space while it is in use.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class CapacityTest : public MultipathTest {
 protected:
  void on_grown(MultipathDevice& /*device*/) noexcept override { ++grown_calls_; }
  [[nodiscard]] std::uint64_t sectors() const { return device_->geometry().sector_count; }
  bool wait_for_sectors(std::uint64_t count, Duration at_most) {
    return reactor_.run_until([&] { return sectors() == count; }, at_most);
  }

  int grown_calls_ = 0;
};

TEST_F(CapacityTest, TheDiskGrowsWhenTheTargetSaysThatTheLunHas) {
  start();
  lun_->resize(4096);
  target_->add_unit_attention(0x2a09);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_TRUE(wait_for_sectors(4096, seconds(1)));
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(grown_calls_, 1);
  EXPECT_TRUE(wait_for_up(2));
  EXPECT_EQ(answer(write(4088, 8, 5)), IoStatus::ok);
  EXPECT_EQ(medium(4095), 5);
  reactor_.run_for(seconds(120));
  EXPECT_EQ(grown_calls_, 1);
  EXPECT_EQ(ready_calls_, 1);
}

TEST_F(CapacityTest, TheDiskGrowsWithoutAWordFromTheTarget) {
  start();
  lun_->resize(4096);
  EXPECT_TRUE(wait_for_sectors(4096, seconds(31)));
}

TEST_F(CapacityTest, TheDiskOfALunWithoutTheLongCommandsGrows) {
  lun_options_.has_16_byte_commands = false;
  start();
  lun_->resize(4096);
  EXPECT_TRUE(wait_for_sectors(4096, seconds(31)));
}

TEST_F(CapacityTest, ItDoesNotWhenItIsToldNotTo) {
  options_.grows = false;
  start();
  lun_->resize(4096);
  target_->add_unit_attention(0x2a09);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  reactor_.run_for(seconds(120));
  EXPECT_EQ(sectors(), 2048U);
  EXPECT_EQ(up(), 2U);
}

TEST_F(CapacityTest, WithoutPollingItIsTheUnitAttentionThatCounts) {
  options_.capacity_polling_interval = milliseconds(0);
  start();
  lun_->resize(4096);
  reactor_.run_for(seconds(300));
  EXPECT_EQ(sectors(), 2048U);
  target_->add_unit_attention(0x2a09);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_TRUE(wait_for_sectors(4096, seconds(1)));
}

// Two controllers, the second of which learns of the new size later.
TEST_F(CapacityTest, TheDiskGrowsOnlyWhenAllPathsAgree) {
  start_target({1});
  SimTargetOptions other_options;
  other_options.portals = {{portal_address(7), 1}};
  SimTarget other(reactor_, other_options);
  auto late = std::make_shared<SimLun>(lun_options_);
  other.add_lun(0, late);
  start_device();
  Session& session = add_session(7);
  session.start();
  device_->add_path(session, 0);
  ASSERT_TRUE(wait_for_up(2));

  lun_->resize(4096);
  reactor_.run_for(seconds(120));
  EXPECT_EQ(sectors(), 2048U);
  EXPECT_EQ(up(), 2U);
  late->resize(3072);
  EXPECT_TRUE(wait_for_sectors(3072, seconds(31))) << "what all of them have";
  late->resize(4096);
  EXPECT_TRUE(wait_for_sectors(4096, seconds(31)));
  EXPECT_EQ(up(), 2U);
  close();
  stop_sessions();
}

TEST_F(CapacityTest, ALunThatHasShrunkIsNotUsedUntilItHasItsSizeAgain) {
  start();
  lun_->options.block_count = 1024;
  ASSERT_TRUE(reactor_.run_until(
      [this] {
        return path(0).state == PathState::quarantined && path(1).state == PathState::quarantined;
      },
      seconds(31)));
  EXPECT_NE(path(0).last_error.find("smaller than the disk"), std::string::npos)
      << path(0).last_error;
  EXPECT_NE(path(0).last_error.find("1024 blocks"), std::string::npos) << path(0).last_error;
  EXPECT_EQ(sectors(), 2048U);
  const GuestRequest& waiting = write(0, 8, 1);
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(waiting));
  lun_->options.block_count = 2048;
  EXPECT_EQ(answer(waiting, seconds(31)), IoStatus::ok);
}

TEST_F(CapacityTest, TheSoftThresholdOfThinProvisioningIsNoError) {
  start();
  target_->inject(sense_fault(SenseKey::unit_attention, 0x3807, 1));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  EXPECT_EQ(up(), 2U);
}

TEST_F(CapacityTest, WritesToAFullLunWaitForSpace) {
  start();
  SimFault full = sense_fault(SenseKey::data_protect, 0x2707, 0);
  full.matches = [](const SimCommand& command) { return is_write(command); };
  target_->inject(full);
  const GuestRequest& first = write(0, 8, 1);
  const GuestRequest& second = write(8, 8, 2);
  reactor_.run_for(seconds(600));
  EXPECT_TRUE(pending(first) && pending(second));
  EXPECT_EQ(device_->snapshot().waiting_for_space, 2U);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(up(), 2U);
  target_->clear_faults();
  EXPECT_EQ(answer(first, seconds(6)), IoStatus::ok);
  EXPECT_EQ(answer(second, seconds(6)), IoStatus::ok);
  EXPECT_EQ(device_->snapshot().waiting_for_space, 0U);
  EXPECT_EQ(medium(8), 2);
}

TEST_F(CapacityTest, CloseDoesNotWaitForSpace) {
  start();
  target_->inject(sense_fault(SenseKey::data_protect, 0x2707, 0));
  const GuestRequest& held = write(0, 8, 1);
  reactor_.run_for(seconds(10));
  close();
  EXPECT_EQ(held.status, IoStatus::aborted);
}

TEST_F(CapacityTest, WritesToAFullLunFailWhenThatIsWanted) {
  options_.no_space = NoSpacePolicy::fail;
  start();
  target_->inject(sense_fault(SenseKey::data_protect, 0x2707, 0));
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::no_space);
  EXPECT_EQ(device_->snapshot().waiting_for_space, 0U);
}

}  // namespace
}  // namespace iscsi_blkback
