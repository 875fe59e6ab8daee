// Requests that are larger than what the LUN takes with one command (VPD page 0xB0).
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class SplitRequestsTest : public MultipathTest {
 protected:
  SplitRequestsTest() { lun_options_.max_transfer_blocks = 16; }  // the simulated LUN insists

  GuestRequest& write_pattern(std::uint64_t sector, std::uint32_t count) {
    return write(sector, count, kSectorNumbers);
  }
  void expect_pattern(std::uint64_t sector, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      ASSERT_EQ(medium(sector + i), static_cast<int>((i + 1) & 0xff)) << i;
    }
  }
};

TEST_F(SplitRequestsTest, GoInPiecesOfTheLimit) {
  start();
  EXPECT_EQ(device_->geometry().max_transfer_sectors, 0U) << "the disk itself has no limit";
  EXPECT_EQ(answer(write_pattern(3, 100)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 7U);
  expect_pattern(3, 100);
  EXPECT_EQ(medium(2), 0);
  EXPECT_EQ(medium(103), 0);
  const GuestRequest& back = read(3, 100);
  EXPECT_EQ(answer(back), IoStatus::ok);
  EXPECT_EQ(lun_->counters.reads, 7U);
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(back.data[i * kSectorBytes], static_cast<std::byte>(i + 1));
  }
}

TEST_F(SplitRequestsTest, UpToTheLimitIsOneCommand) {
  start();
  EXPECT_EQ(answer(write_pattern(0, 16)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 1U);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(SplitRequestsTest, LimitIsInLogicalBlocks) {
  lun_options_.block_bytes = 4096;
  lun_options_.max_transfer_blocks = 2;
  start();
  EXPECT_EQ(answer(write_pattern(8, 80)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 5U);
  expect_pattern(8, 80);
}

TEST_F(SplitRequestsTest, ErrorOfAPieceIsTheAnswerAndNothingFollowsIt) {
  start();
  int pieces = 0;
  SimFault third = sense_fault(SenseKey::illegal_request, 0x2600, 1);
  third.matches = [&](const SimCommand& command) { return is_write(command) && ++pieces == 3; };
  target_->inject(third);
  EXPECT_EQ(answer(write_pattern(0, 100)), IoStatus::target_error);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(lun_->counters.writes, 2U);
}

TEST_F(SplitRequestsTest, PieceThatIsRefusedForNowIsRetried) {
  start();
  target_->inject(status_fault(ScsiStatus::busy, 3));
  EXPECT_EQ(answer(write_pattern(0, 100)), IoStatus::ok);
  expect_pattern(0, 100);
}

TEST_F(SplitRequestsTest, PathThatIsLostInTheMiddleLosesNothing) {
  start();
  const GuestRequest& request = write_pattern(0, 100);
  ASSERT_TRUE(reactor_.run_until([this] { return lun_->counters.writes == 3; }, seconds(1)));
  reactor_.network().reset_connections(portal_address(0));
  reactor_.network().reset_connections(portal_address(1));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(answer(request), IoStatus::ok);
  expect_pattern(0, 100);
}

// A piece is lost with its connection and may still be executed: a newer write to any part of the
// request waits until it cannot be.
TEST_F(SplitRequestsTest, LostPieceHoldsNewerWritesOfTheWholeRange) {
  target_options_.linger_delay = seconds(2);
  start({1, 2});
  SimFault late;
  late.matches = [](const SimCommand& command) { return is_write(command) && command.portal == 0; };
  late.execute = true;
  late.extra_delay = milliseconds(50);
  late.count = 0;
  target_->inject(late);
  const GuestRequest& request = write_pattern(0, 64);
  reactor_.run_for(milliseconds(20));
  target_->close_portal(0);
  EXPECT_EQ(answer(request), IoStatus::ok);
  const GuestRequest& newer = write(60, 4, 0x77);
  EXPECT_EQ(answer(newer, seconds(90)), IoStatus::ok);
  EXPECT_EQ(target_->counters.executed_after_close, 1U);
  EXPECT_GE(newer.took(), seconds(2));
  EXPECT_EQ(medium(60), 0x77);
  EXPECT_EQ(medium(63), 0x77);
  target_->clear_faults();
  target_->open_portal(0);
}

TEST_F(SplitRequestsTest, LimitThatShrinksIsLearnedWithTheIdentity) {
  start();
  lun_->options.max_transfer_blocks = 8;
  target_->add_unit_attention(0x3f03);
  EXPECT_EQ(answer(write_pattern(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(write_pattern(0, 8)), IoStatus::ok);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(answer(write_pattern(0, 100)), IoStatus::ok);
  expect_pattern(0, 100);
}

TEST_F(SplitRequestsTest, ClosingEndsARequestBetweenItsPieces) {
  start();
  const GuestRequest& request = write_pattern(0, 2000);
  ASSERT_TRUE(reactor_.run_until([this] { return lun_->counters.writes == 3; }, seconds(1)));
  close();
  EXPECT_EQ(request.status, IoStatus::aborted);
}

}  // namespace
}  // namespace iscsi_blkback
