// Discards: in the form and the pieces that the LUN takes, and in order with writes, since one that is
// lost may deallocate at any time what was written since.
#include "multipath/requests/discard_limits.h"
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

TEST(DiscardLimits, WhatTheLunTakesGoesAtOnce) {
  constexpr DiscardLimits kLimits{.most_sectors = 100, .granularity_sectors = 8};
  EXPECT_EQ(kLimits.next(3, 100), 100U);
  EXPECT_EQ(kLimits.next(3, 1), 1U);
}

TEST(DiscardLimits, NoUnitIsCut) {
  constexpr DiscardLimits kLimits{
      .most_sectors = 100, .granularity_sectors = 8, .alignment_sectors = 4};
  EXPECT_EQ(kLimits.next(0, 1000), 100U) << "100 is the end of a unit";
  EXPECT_EQ(kLimits.next(3, 1000), 97U);
  EXPECT_EQ(kLimits.next(4, 1000), 96U);
  EXPECT_EQ(kLimits.next(100, 1000), 96U);
}

TEST(DiscardLimits, UnitsThatAreLargerThanACommandAreCut) {
  constexpr DiscardLimits kLimits{.most_sectors = 10, .granularity_sectors = 64};
  EXPECT_EQ(kLimits.next(0, 1000), 10U);
  EXPECT_EQ(kLimits.next(60, 1000), 4U) << "where one ends, the next begins";
}

class DiscardTest : public MultipathTest {
 protected:
  DiscardTest() {
    lun_options_.thin_provisioned = true;
    lun_options_.max_unmap_blocks = 20;
  }

  static bool is_unmap(const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kUnmap;
  }
  // From sector 0 on; what has reached the portal may be executed after its connection is gone.
  GuestRequest& discard_lost_at_portal_0(std::uint32_t sectors) {
    SimFault late;
    late.matches = [](const SimCommand& command) {
      return is_unmap(command) && command.portal == 0;
    };
    late.execute = true;
    late.extra_delay = milliseconds(50);
    late.count = 0;
    target_->inject(late);
    GuestRequest& lost = at_path(0, [&]() -> GuestRequest& { return discard(0, sectors); });
    reactor_.run_for(milliseconds(20));
    target_->close_portal(0);
    return lost;
  }
  void write_all(int fill) {
    for (std::uint64_t sector = 0; sector < 128; sector += 32) {
      ASSERT_EQ(answer(write(sector, 32, fill)), IoStatus::ok);
    }
  }
  void expect_zeros(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t sector = 0; sector < 128; ++sector) {
      const bool discarded = sector >= first && sector < first + count;
      ASSERT_EQ(medium(sector), discarded ? 0 : 9) << sector;
    }
  }
};

TEST_F(DiscardTest, TheDiskTellsItsUnits) {
  start();
  EXPECT_EQ(device_->geometry().discard_granularity_bytes, 8U * 512U);
  EXPECT_EQ(device_->geometry().discard_alignment_bytes, 4U * 512U);
}

TEST_F(DiscardTest, ADiskThatIsNotThinHasNone) {
  lun_options_.thin_provisioned = false;
  start();
  EXPECT_EQ(device_->geometry().discard_granularity_bytes, 0U);
}

TEST_F(DiscardTest, ADiskThatIsReadOnlyHasNone) {
  lun_options_.read_only = true;
  start();
  EXPECT_EQ(device_->geometry().discard_granularity_bytes, 0U);
}

TEST_F(DiscardTest, GoesInPiecesOfWholeUnits) {
  start();
  ASSERT_NO_FATAL_FAILURE(write_all(9));
  EXPECT_EQ(answer(discard(10, 70)), IoStatus::ok);
  // To 28, 44, 60, 80.
  EXPECT_EQ(lun_->counters.unmaps, 4U);
  expect_zeros(10, 70);
}

TEST_F(DiscardTest, ByWriteSameWhereTheLunHasOnlyThat) {
  lun_options_.has_unmap = false;
  start();
  EXPECT_EQ(device_->geometry().discard_granularity_bytes, 8U * 512U);
  ASSERT_NO_FATAL_FAILURE(write_all(9));
  EXPECT_EQ(answer(discard(10, 70)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.write_sames, 1U);
  EXPECT_EQ(lun_->counters.unmaps, 0U);
  expect_zeros(10, 70);
}

TEST_F(DiscardTest, OneThatIsRefusedIsNotSupported) {
  lun_options_.unknown_operations = {scsi_operation::kUnmap};
  start();
  EXPECT_EQ(answer(discard(0, 8)), IoStatus::not_supported);
  SimFault refused = sense_fault(SenseKey::illegal_request, 0x2400, 1);
  refused.matches = is_unmap;
  target_->inject(refused);
  EXPECT_EQ(answer(discard(0, 8)), IoStatus::not_supported);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

TEST_F(DiscardTest, OneWithTooManyBlocksByNowIsNotSupported) {
  start();
  SimFault refused = sense_fault(SenseKey::illegal_request, 0x2600, 1);
  refused.matches = is_unmap;
  target_->inject(refused);
  EXPECT_EQ(answer(discard(0, 8)), IoStatus::not_supported);
}

// A path that has been asked for its provisioning in a bad moment knows no form.
TEST_F(DiscardTest, APathThatHasNotToldItsFormUsesTheDisks) {
  lun_options_.has_unmap = false;
  start_target();
  SimFault untold;
  untold.matches = [](const SimCommand& command) {
    return command.portal == 1 && command.cdb[0] == scsi_operation::kInquiry &&
           command.cdb[2] == 0xb2;
  };
  untold.status = ScsiStatus::busy;
  untold.count = 0;
  target_->inject(untold);
  start_device(true);
  ASSERT_EQ(up(), 2U);
  for (std::uint64_t sector = 0; sector < 64; sector += 8) {
    EXPECT_EQ(answer(discard(sector, 8)), IoStatus::ok) << sector;
  }
  target_->close_portal(0);
  EXPECT_EQ(answer(discard(64, 8)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.unmaps, 0U);
  target_->open_portal(0);
}

// An fstrim is most of a disk: a piece that is lost does not hold the writes to the rest.
TEST_F(DiscardTest, ALostPieceHoldsNoWritesToOtherPieces) {
  target_options_.linger_delay = seconds(2);
  start({1, 2});
  GuestRequest& lost = discard_lost_at_portal_0(1000);
  const GuestRequest& elsewhere = write(990, 4, 0x77);
  EXPECT_EQ(answer(elsewhere, seconds(1)), IoStatus::ok);
  EXPECT_EQ(answer(lost, seconds(90)), IoStatus::ok);
  target_->clear_faults();
  target_->open_portal(0);
}

TEST_F(DiscardTest, OneThatIsLostIsSentElsewhere) {
  start();
  ASSERT_NO_FATAL_FAILURE(write_all(9));
  target_->close_portal(0);
  EXPECT_EQ(answer(discard(0, 16)), IoStatus::ok);
  EXPECT_EQ(answer(discard(16, 16)), IoStatus::ok);
  expect_zeros(0, 32);
}

// It is lost at portal 0, and may be executed there after the newer write has been answered.
TEST_F(DiscardTest, ALostOneHoldsNewerWritesOfItsRange) {
  target_options_.linger_delay = seconds(2);
  start({1, 2});  // portal groups of their own: nobody else can fence
  ASSERT_NO_FATAL_FAILURE(write_all(9));
  GuestRequest& lost = discard_lost_at_portal_0(16);
  EXPECT_EQ(answer(lost), IoStatus::ok);
  const GuestRequest& newer = write(8, 4, 0x77);
  EXPECT_EQ(answer(newer, seconds(90)), IoStatus::ok);
  EXPECT_GE(newer.took(), seconds(2));
  EXPECT_EQ(medium(8), 0x77);
  EXPECT_EQ(medium(11), 0x77);
  target_->clear_faults();
  target_->open_portal(0);
}

}  // namespace
}  // namespace iscsi_blkback
