// Guests of LUNs whose blocks are larger than sectors. See guest_backend_fixture.h.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(GuestBackendTest, SectorsOfA4KnLunAreReadAndWritten) {
  const auto lun =
      std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096});
  target_.add_lun(1, lun);
  FakeFrontend& guest = serve();
  EXPECT_EQ(guest.sectors(), 8000U);
  EXPECT_EQ(guest.sector_size(), 512U);
  EXPECT_EQ(guest.physical_sector_size(), 32768U) << "eight of its blocks";
  ASSERT_NO_FATAL_FAILURE(write(guest, 64, pattern(16, 1)));
  ASSERT_NO_FATAL_FAILURE(write(guest, 67, pattern(3, 2)));
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 67, pattern(3, 2)));
  std::vector<std::byte> expected = pattern(16, 1);
  const std::vector<std::byte> part = pattern(3, 2);
  std::copy(part.begin(), part.end(), expected.begin() + 3 * 512);
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 64, expected));
}

// A path is lost between the read and the write of a block of which a part is written.
TEST_F(GuestBackendTest, APartOfABlockOfA4KnLunSurvivesAPathThatIsLost) {
  const auto lun =
      std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096});
  target_.add_lun(1, lun);
  FakeFrontend& guest = serve();
  ASSERT_NO_FATAL_FAILURE(write(guest, 64, pattern(16, 1)));
  hold_writes(true);
  const auto id = guest.write(67, pattern(3, 2));
  ASSERT_TRUE(id);
  guest.push();
  run_for(100ms);
  target_.close_portal(0);
  target_.clear_faults();
  target_.release_held();
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
  target_.open_portal(0);
  std::vector<std::byte> expected = pattern(16, 1);
  const std::vector<std::byte> part = pattern(3, 2);
  std::copy(part.begin(), part.end(), expected.begin() + 3 * 512);
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 64, expected));
}

// Counted in 512 bytes all the same.
TEST_F(GuestBackendTest, A4KnLunIsToldAsSuchWhereThatIsSet) {
  target_.add_lun(
      1, std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096}));
  FakeFrontend& guest = serve(disk(std::string(kParams) + "?sector_size=4096"));
  EXPECT_EQ(guest.sectors(), 8000U);
  EXPECT_EQ(guest.sector_size(), 4096U);
  ASSERT_NO_FATAL_FAILURE(write(guest, 7984, pattern(16, 1)));
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 7984, pattern(16, 1)));
}

// What others write at the same time would be undone.
TEST_F(GuestBackendTest, PartsOfBlocksOfASharedLunAreRefused) {
  target_.add_lun(
      1, std::make_shared<SimLun>(SimLunOptions{.block_count = 1000, .block_bytes = 4096}));
  configuration_.multipath.shared = true;
  FakeFrontend& guest = serve();
  const auto part = guest.write(67, pattern(3, 2));
  ASSERT_TRUE(part);
  guest.push();
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *part, 20s, kBlkifError));
  ASSERT_NO_FATAL_FAILURE(write(guest, 64, pattern(16, 1)));
}

}  // namespace
}  // namespace iscsi_blkback
