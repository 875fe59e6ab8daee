// Flushes with data, and barriers: in which order what they ask for reaches the device.
#include <gmock/gmock.h>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

class VbdBarrierTest : public testing::Test {
 protected:
  static constexpr BlockOperation kRead = BlockOperation::read;
  static constexpr BlockOperation kWrite = BlockOperation::write;
  static constexpr BlockOperation kFlush = BlockOperation::flush;

  void SetUp() override {
    bench_.disk.set_plan([this](const BlockRequest& request, std::uint64_t) {
      order_.push_back(request.operation);
      FaultyDisk::Action action;
      if (hold_) {
        action.kind = FaultyDisk::Action::Kind::hold;
      } else if (request.operation == fails_ && failures_ > 0) {
        --failures_;
        action.kind = FaultyDisk::Action::Kind::fail;
        action.status = status_;
      }
      return action;
    });
    VbdOptions options;
    options.max_indirect_segments = 32;
    ASSERT_TRUE(bench_.connect(options));
  }
  static FakeFrontend::Options options() {
    FakeFrontend::Options options;
    options.indirect_segments = 32;
    return options;
  }
  void run() {
    bench_.frontend->push();
    bench_.reactor.run_until_idle();
  }

  Bench bench_{options()};
  std::vector<BlockOperation> order_;  // as the device has seen them
  bool hold_ = false;
  BlockOperation fails_ = kFlush;
  int failures_ = 0;
  IoStatus status_ = IoStatus::target_error;
};

TEST_F(VbdBarrierTest, AFlushWithDataIsAFlushAndThenAWrite) {
  const auto answer = bench_.answer(bench_.frontend->flush_and_write(16, pattern(8192, 4)));
  EXPECT_EQ(answer.status, kBlkifOkay);
  EXPECT_EQ(answer.operation, kBlkifFlush);
  EXPECT_THAT(order_, ElementsAre(kFlush, kWrite));
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 16)).data, pattern(8192, 4));
}

TEST_F(VbdBarrierTest, ABarrierIsFlushedOnBothSides) {
  const auto answer = bench_.answer(bench_.frontend->barrier(16, pattern(4096, 4)));
  EXPECT_EQ(answer.status, kBlkifOkay);
  EXPECT_EQ(answer.operation, kBlkifWriteBarrier);
  EXPECT_THAT(order_, ElementsAre(kFlush, kWrite, kFlush));
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).data, pattern(4096, 4));
}

TEST_F(VbdBarrierTest, ABarrierWithoutDataIsAFlush) {
  EXPECT_EQ(bench_.answer(bench_.frontend->barrier(0, {})).status, kBlkifOkay);
  EXPECT_THAT(order_, ElementsAre(kFlush));
}

TEST_F(VbdBarrierTest, ABarrierWaitsForAllBeforeItAndHoldsAllBehindIt) {
  hold_ = true;
  const auto before = bench_.frontend->write(0, pattern(4096, 1));
  const auto also = bench_.frontend->read(8, 8);
  const auto barrier = bench_.frontend->barrier(16, pattern(4096, 2));
  const auto behind = bench_.frontend->write(16, pattern(4096, 3));
  run();
  EXPECT_THAT(order_, ElementsAre(kWrite, kRead));
  bench_.disk.release(1);
  run();
  EXPECT_THAT(order_, ElementsAre(kWrite, kRead)) << "one is still under way";
  bench_.disk.release(1);
  run();
  EXPECT_THAT(order_, ElementsAre(kWrite, kRead, kFlush));
  EXPECT_TRUE(bench_.frontend->take_completion(*before));
  EXPECT_TRUE(bench_.frontend->take_completion(*also));
  bench_.disk.release(1);
  run();
  bench_.disk.release(1);
  run();
  EXPECT_THAT(order_, ElementsAre(kWrite, kRead, kFlush, kWrite, kFlush));
  EXPECT_FALSE(bench_.frontend->take_completion(*barrier)) << "before it is on the medium";
  bench_.disk.release(1);
  run();
  EXPECT_TRUE(bench_.frontend->take_completion(*barrier));
  hold_ = false;
  bench_.disk.release();
  run();
  EXPECT_TRUE(bench_.frontend->take_completion(*behind));
  EXPECT_EQ(order_.size(), 6U);
  EXPECT_EQ(bench_.vbd->statistics().waits_for_room, 0U);
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).data, pattern(4096, 3));
}

TEST_F(VbdBarrierTest, ALargeOneHoldsAllBehindItAsWell) {
  const std::vector<std::byte> data = pattern(20 * 4096, 2);
  const auto barrier = bench_.frontend->barrier(16, data);
  const auto behind = bench_.frontend->write(16, pattern(4096, 3));
  run();
  EXPECT_THAT(order_, ElementsAre(kFlush, kWrite, kFlush, kWrite));
  EXPECT_EQ(bench_.frontend->take_completion(*barrier)->operation, kBlkifWriteBarrier);
  EXPECT_EQ(bench_.frontend->take_completion(*behind)->status, kBlkifOkay);
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).data, pattern(4096, 3));
}

TEST_F(VbdBarrierTest, ALargeOneWhoseDescriptorsCannotBeCopiedHoldsNothing) {
  BlkifRequest request;
  request.operation = kBlkifIndirect;
  request.indirect_operation = kBlkifWriteBarrier;
  request.segment_count = 20;
  request.indirect_references[0] = 0xffffffffU;
  EXPECT_EQ(bench_.answer(bench_.frontend->raw(request)).status, kBlkifError);
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).status, kBlkifOkay);
}

// A frontend would take EOPNOTSUPP for success.
TEST_F(VbdBarrierTest, DataThatTheLunDoesNotTakeIsAnError) {
  fails_ = kWrite;
  failures_ = 2;
  status_ = IoStatus::not_supported;
  EXPECT_EQ(bench_.answer(bench_.frontend->barrier(16, pattern(4096, 4))).status, kBlkifError);
  EXPECT_EQ(bench_.answer(bench_.frontend->flush_and_write(16, pattern(4096, 4))).status,
            kBlkifError);
}

TEST_F(VbdBarrierTest, ManyInARow) {
  std::vector<std::uint64_t> ids;
  for (std::uint32_t i = 0; i < 10; ++i) {
    ids.push_back(*bench_.frontend->barrier(0, pattern(4096, i)));
    ids.push_back(*bench_.frontend->write(8, pattern(4096, i)));
  }
  run();
  for (const std::uint64_t id : ids) {
    const auto answer = bench_.frontend->take_completion(id);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, kBlkifOkay);
  }
  EXPECT_EQ(bench_.answer(bench_.frontend->read(0, 8)).data, pattern(4096, 9));
}

TEST_F(VbdBarrierTest, AFlushThatFailsBeforeTheDataIsTriedAgain) {
  failures_ = 2;
  const auto id = bench_.frontend->flush_and_write(16, pattern(4096, 4));
  run();
  EXPECT_FALSE(bench_.frontend->take_completion(*id));
  bench_.reactor.run_for(seconds(5));
  const auto answer = bench_.frontend->take_completion(*id);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, kBlkifOkay);
  EXPECT_THAT(order_, ElementsAre(kFlush, kFlush, kFlush, kWrite));
}

TEST_F(VbdBarrierTest, AWriteThatFailsIsTold) {
  fails_ = kWrite;
  failures_ = 1;
  EXPECT_EQ(bench_.answer(bench_.frontend->barrier(16, pattern(4096, 4))).status, kBlkifError);
  EXPECT_THAT(order_, ElementsAre(kFlush, kWrite));
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).status, kBlkifOkay);
}

TEST_F(VbdBarrierTest, OneWhosePagesCannotBeCopiedHoldsNothing) {
  BlkifRequest request = raw_read(0, 0xffffffffU);
  request.operation = kBlkifWriteBarrier;
  EXPECT_EQ(bench_.answer(bench_.frontend->raw(request)).status, kBlkifError);
  EXPECT_EQ(bench_.answer(bench_.frontend->read(16, 8)).status, kBlkifOkay);
}

TEST_F(VbdBarrierTest, ClosingAnswersOneThatWaits) {
  hold_ = true;
  (void)bench_.frontend->write(0, pattern(4096, 1));
  const auto barrier = bench_.frontend->barrier(16, pattern(4096, 2));
  run();
  bench_.close();
  hold_ = false;
  bench_.disk.release();
  run();
  EXPECT_EQ(bench_.frontend->take_completion(*barrier)->status, kBlkifOkay);
  EXPECT_EQ(bench_.closed, 1);
}

TEST(VbdBarrierReadOnly, WritesNothing) {
  Bench bench;
  VbdOptions options;
  options.read_only = true;
  ASSERT_TRUE(bench.connect(options));
  EXPECT_EQ(bench.answer(bench.frontend->barrier(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.answer(bench.frontend->flush_and_write(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.answer(bench.frontend->barrier(0, {})).status, kBlkifOkay);
}

}  // namespace
}  // namespace iscsi_blkback
