// Guests that discard, from the disk line to the LUN. See guest_backend_fixture.h.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class GuestBackendDiscardTest : public GuestBackendTest {
 protected:
  // LUN 1 as it is wanted.
  void have_lun(const SimLunOptions& options) {
    lun_ = std::make_shared<SimLun>(options);
    target_.add_lun(1, lun_);
  }
  std::int16_t status_of(FakeFrontend& guest, std::uint64_t sector, std::uint64_t count) {
    const auto id = guest.discard(sector, count);
    guest.push();
    std::optional<FakeFrontend::Answer> answer;
    EXPECT_TRUE(run_until([&] {
      guest.poll();
      answer = guest.take_completion(*id);
      return answer.has_value();
    }));
    return answer ? answer->status : std::int16_t{99};
  }

  std::shared_ptr<SimLun> lun_;
};

TEST_F(GuestBackendDiscardTest, AThinLunIsUnmapped) {
  have_lun({.thin_provisioned = true});
  FakeFrontend& guest = serve();
  EXPECT_TRUE(guest.discard_supported());
  EXPECT_EQ(toolstack_.backend_value(disk(), "discard-granularity"), "4096");
  EXPECT_EQ(toolstack_.backend_value(disk(), "discard-alignment"), "2048");
  ASSERT_NO_FATAL_FAILURE(write(guest, 64, pattern(16, 1)));
  EXPECT_EQ(status_of(guest, 64, 8), kBlkifOkay);
  EXPECT_EQ(lun_->counters.unmaps, 1U);
  EXPECT_EQ(lun_->medium()[64 * kSectorBytes], std::byte{0});
}

TEST_F(GuestBackendDiscardTest, AThickLunOffersNothing) {
  FakeFrontend& guest = serve();
  EXPECT_FALSE(guest.discard_supported());
  EXPECT_EQ(status_of(guest, 64, 8), kBlkifNotSupported);
}

// By no-discard.
TEST_F(GuestBackendDiscardTest, ADiskLineForbidsIt) {
  have_lun({.thin_provisioned = true});
  FakeDisk forbidden = disk();
  forbidden.discards = false;
  FakeFrontend& guest = serve(forbidden);
  EXPECT_FALSE(guest.discard_supported());
  EXPECT_EQ(status_of(guest, 64, 8), kBlkifNotSupported);
  EXPECT_EQ(lun_->counters.unmaps, 0U);
}

}  // namespace
}  // namespace iscsi_blkback
