// No guest I/O goes to a LUN that is not the disk's.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(MultipathTest, APathToAnotherLunIsQuarantined) {
  start_target();
  SimTargetOptions other_options;
  other_options.portals = {{portal_address(7), 1}};
  SimTarget other(reactor_, other_options);
  SimLunOptions other_lun;
  other_lun.naa_extension = 2;
  other.add_lun(0, std::make_shared<SimLun>(other_lun));
  start_device();

  Session& session = add_session(7);
  session.start();
  device_->add_path(session, 0);
  ASSERT_TRUE(reactor_.run_until([this] { return path(2).state == PathState::quarantined; }));
  EXPECT_NE(path(2).last_error.find("another LUN"), std::string::npos) << path(2).last_error;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  reactor_.run_for(seconds(60));
  EXPECT_EQ(path(2).state, PathState::quarantined);
  EXPECT_EQ(other.lun(0).counters.writes, 0U);
  close();
  stop_sessions();
}

TEST_F(MultipathTest, APathToASmallerLunIsQuarantined) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->options.block_count = 1024;
  restore(1);
  ASSERT_TRUE(
      reactor_.run_until([this] { return path(1).state == PathState::quarantined; }, seconds(20)));
  EXPECT_NE(path(1).last_error.find("capacity"), std::string::npos) << path(1).last_error;
  lun_->options.block_count = 2048;
}

TEST_F(MultipathTest, APathToTheSameLunThatHasGrownIsUsed) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->resize(4096);
  restore(1);
  EXPECT_TRUE(wait_for_up(2));
  EXPECT_EQ(device_->geometry().sector_count, 2048U);
}

TEST_F(MultipathTest, APathToALunWithOtherBlocksIsQuarantined) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->options.block_bytes = 4096;
  restore(1);
  EXPECT_TRUE(
      reactor_.run_until([this] { return path(1).state == PathState::quarantined; }, seconds(20)));
  lun_->options.block_bytes = 512;
}

TEST_F(MultipathTest, ALunThatBecomesAnotherOneUnderALiveSessionIsQuarantined) {
  start();
  lun_->options.naa_extension = 99;
  target_->add_unit_attention(0x3f0e);
  const GuestRequest& request = write(0, 8, 1);
  ASSERT_TRUE(reactor_.run_until(
      [this] {
        return path(0).state == PathState::quarantined && path(1).state == PathState::quarantined;
      },
      seconds(20)));
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.writes, 0U) << "no guest data on a foreign LUN";

  lun_->options.naa_extension = 1;
  target_->add_unit_attention(0x3f03);
  EXPECT_EQ(answer(request, seconds(20)), IoStatus::ok);
}

TEST_F(MultipathTest, ALunWithoutIdentityIsRecognizedByItsPlace) {
  lun_options_.naa_extension = 0;
  lun_options_.serial.clear();
  start();
  EXPECT_EQ(device_->snapshot().wwid, "");
  EXPECT_EQ(up(), 2U);
}

}  // namespace
}  // namespace iscsi_blkback
