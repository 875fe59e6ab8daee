// What a VbdQueue refuses, and what becomes of the rest: bad requests, errors of the device.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

// --- refusals: only the bad request suffers ----------------------------------------------------

class VbdRefusalTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.connect()); }

  // The bad one between two good ones.
  std::int16_t answer_to(const BlkifRequest& request) {
    const auto before = bench_.frontend->read(0, 8);
    const auto bad = bench_.frontend->raw(request);
    const auto after = bench_.frontend->write(8, pattern(4096, 1));
    const FakeFrontend::Answer answer = bench_.answer(bad);
    EXPECT_EQ(answer.operation, request.operation);
    EXPECT_EQ(bench_.answer(before).status, kBlkifOkay);
    EXPECT_EQ(bench_.answer(after).status, kBlkifOkay);
    EXPECT_TRUE(bench_.broken.empty());
    return answer.status;
  }
  BlkifRequest good() { return raw_read(0, bench_.frontend->spare_reference()); }

  Bench bench_;
};

TEST_F(VbdRefusalTest, AGoodRawRequestIsNotRefused) {
  EXPECT_EQ(answer_to(good()), kBlkifOkay);
  EXPECT_EQ(bench_.vbd->statistics().refused, 0U);
}

TEST_F(VbdRefusalTest, RejectsUnknownOperation) {
  BlkifRequest request = good();
  request.operation = 200;
  EXPECT_EQ(answer_to(request), kBlkifNotSupported);
}

TEST_F(VbdRefusalTest, RejectsADiscardThatWasNotOffered) {
  BlkifRequest request = good();
  request.operation = kBlkifDiscard;
  EXPECT_EQ(answer_to(request), kBlkifNotSupported);
}

TEST_F(VbdRefusalTest, RejectsNoSegments) {
  BlkifRequest request = good();
  request.segment_count = 0;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsTooManySegments) {
  BlkifRequest request = good();
  request.segment_count = 12;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsSectorsBeyondThePage) {
  BlkifRequest request = good();
  request.segments[0].last_sector = 8;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsBeyondEndOfDisk) {
  BlkifRequest request = good();
  request.sector = kDiskSectors - 7;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsSectorOverflow) {
  BlkifRequest request = good();
  request.sector = ~0ULL;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsUnknownGrantOnRead) {
  BlkifRequest request = good();
  request.segments[0].reference = 0xffffffffU;
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.vbd->statistics().errors, 1U);
}

TEST_F(VbdRefusalTest, Xsa316RejectsUnknownGrantOnWrite) {
  BlkifRequest request = good();
  request.operation = kBlkifWrite;
  request.segment_count = 2;
  request.segments[1] = BlkifSegment{0xffffffffU, 0, 7, 0};
  const std::uint64_t submitted = bench_.memory.submitted();
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.memory.submitted(), submitted + 2) << "the bad write must not reach the disk";
}

TEST_F(VbdRefusalTest, RejectsReadIntoAPageGrantedReadOnly) {
  EXPECT_EQ(answer_to(raw_read(0, bench_.frontend->spare_read_only_reference())), kBlkifError);
}

TEST_F(VbdRefusalTest, AcceptsWriteFromAPageGrantedReadOnly) {
  BlkifRequest request = raw_read(0, bench_.frontend->spare_read_only_reference());
  request.operation = kBlkifWrite;
  EXPECT_EQ(answer_to(request), kBlkifOkay);
}

TEST(VbdReadOnly, Xsa142NoWriteReachesTheDevice) {
  Bench bench;
  VbdOptions options;
  options.read_only = true;
  ASSERT_TRUE(bench.connect(options));
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.memory.submitted(), 0U);
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

TEST(VbdReadOnly, TheDevicesOwnReadOnlyCounts) {
  Bench bench;
  Geometry read_only = geometry();
  read_only.read_only = true;
  bench.memory.set_geometry(read_only);
  ASSERT_TRUE(bench.connect());
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.memory.submitted(), 0U);
}

TEST(VbdLogicalBlocks, RejectsRequestsThatAreNotWholeBlocks) {
  Bench bench;
  Geometry blocks = geometry();
  blocks.logical_block_bytes = 4096;
  bench.memory.set_geometry(blocks);
  ASSERT_TRUE(bench.connect());
  EXPECT_EQ(bench.answer(bench.frontend->read(8, 8)).status, kBlkifOkay);
  EXPECT_EQ(bench.answer(bench.frontend->read(4, 8)).status, kBlkifError);
  EXPECT_EQ(bench.answer(bench.frontend->read(8, 4)).status, kBlkifError);
}

TEST(VbdLog, AGuestCannotFillTheLog) {
  struct Restore {
    std::unique_ptr<LogSink> previous;
    ~Restore() { set_log_sink(std::move(previous)); }
  };
  auto sink = std::make_unique<MemoryLogSink>();
  const MemoryLogSink& lines = *sink;
  Restore restore{set_log_sink(std::move(sink))};
  Bench bench;
  ASSERT_TRUE(bench.connect());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(bench.answer(bench.frontend->read(kDiskSectors, 8)).status, kBlkifError);
  }
  EXPECT_EQ(bench.vbd->statistics().refused, 1000U);
  EXPECT_TRUE(lines.contains("beyond the end of the disk"));
  EXPECT_LT(lines.lines().size(), 50U);
}

// --- errors of the device ----------------------------------------------------------------------

TEST(VbdDeviceErrors, AreAnsweredAsErrors) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  IoStatus status = IoStatus::ok;
  bench.disk.set_plan([&](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::fail, status};
  });
  for (const IoStatus failure :
       {IoStatus::medium_error, IoStatus::target_error, IoStatus::out_of_range,
        IoStatus::write_protected, IoStatus::no_space, IoStatus::reservation_conflict,
        IoStatus::no_path, IoStatus::aborted}) {
    status = failure;
    EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifError) << to_string(failure);
  }
  EXPECT_EQ(bench.vbd->statistics().errors, 8U);
}

TEST(VbdDeviceErrors, AFailedReadLeavesTheGuestsPagesAlone) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::fail, IoStatus::medium_error};
  });
  std::fill(bench.frontend->spare_page().begin(), bench.frontend->spare_page().end(),
            std::byte{0x5a});
  const auto id = bench.frontend->raw(raw_read(0, bench.frontend->spare_reference()));
  EXPECT_EQ(bench.answer(id).status, kBlkifError);
  EXPECT_EQ(bench.frontend->spare_page()[100], std::byte{0x5a});
}

}  // namespace
}  // namespace iscsi_blkback
