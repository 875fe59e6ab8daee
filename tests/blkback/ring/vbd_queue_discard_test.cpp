// A VbdQueue whose guest discards.
#include <gmock/gmock.h>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

class VbdDiscardTest : public testing::TestWithParam<BlkifAbi> {
 protected:
  VbdDiscardTest() : bench_(options()) {
    Geometry thin = geometry();
    thin.discard_granularity_bytes = 4096;
    bench_.memory.set_geometry(thin);
  }
  void connect(bool discards) {
    VbdOptions options;
    options.discards = discards;
    ASSERT_TRUE(bench_.connect(options));
  }
  static FakeFrontend::Options options() {
    FakeFrontend::Options options;
    options.abi = GetParam();
    return options;
  }

  Bench bench_;
};

INSTANTIATE_TEST_SUITE_P(All, VbdDiscardTest, testing::Values(BlkifAbi::x86_64, BlkifAbi::x86_32),
                         [](const auto& abi) {
                           return abi.param == BlkifAbi::x86_32 ? "x86_32" : "x86_64";
                         });

TEST_P(VbdDiscardTest, ReachesTheDevice) {
  ASSERT_NO_FATAL_FAILURE(connect(true));
  EXPECT_EQ(bench_.answer(bench_.frontend->write(8, pattern(4096, 1))).status, kBlkifOkay);
  const FakeFrontend::Answer answer = bench_.answer(bench_.frontend->discard(8, 3));
  EXPECT_EQ(answer.status, kBlkifOkay);
  EXPECT_EQ(answer.operation, kBlkifDiscard);
  const std::vector<std::byte> data = bench_.answer(bench_.frontend->read(8, 8)).data;
  std::vector<std::byte> expected = pattern(4096, 1);
  std::fill_n(expected.begin(), 3 * kSectorBytes, std::byte{0xdd});
  EXPECT_EQ(data, expected);
  EXPECT_EQ(bench_.vbd->statistics().discards, 1U);
  EXPECT_EQ(bench_.vbd->statistics().discarded_sectors, 3U);
}

TEST_P(VbdDiscardTest, IsNotSupportedWhereItWasNotOffered) {
  ASSERT_NO_FATAL_FAILURE(connect(false));
  EXPECT_EQ(bench_.answer(bench_.frontend->discard(8, 8)).status, kBlkifNotSupported);
  EXPECT_EQ(bench_.memory.submitted(), 0U);
}

TEST_P(VbdDiscardTest, IsNotSupportedWhereTheDeviceHasNone) {
  bench_.memory.set_geometry(geometry());
  ASSERT_NO_FATAL_FAILURE(connect(true));
  EXPECT_EQ(bench_.answer(bench_.frontend->discard(8, 8)).status, kBlkifNotSupported);
}

TEST_P(VbdDiscardTest, RejectsBeyondEndOfDisk) {
  ASSERT_NO_FATAL_FAILURE(connect(true));
  EXPECT_EQ(bench_.answer(bench_.frontend->discard(kDiskSectors - 1, 2)).status, kBlkifError);
  EXPECT_EQ(bench_.memory.submitted(), 0U);
}

}  // namespace
}  // namespace iscsi_blkback
