// A VbdQueue whose guest sends indirect requests: larger than eleven pages, their segments described in
// a page of the guest's.
#include <gmock/gmock.h>

#include <cstring>
#include <deque>
#include <map>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kSegments = 64;

VbdOptions offered(std::uint32_t segments = kSegments) {
  VbdOptions options;
  options.max_indirect_segments = segments;
  return options;
}

FakeFrontend::Options with_indirect(BlkifAbi abi = BlkifAbi::x86_64, std::uint32_t pages = 1) {
  FakeFrontend::Options options;
  options.abi = abi;
  options.ring_pages = pages;
  options.indirect_segments = kSegments;
  return options;
}

class VbdIndirectAbiTest : public testing::TestWithParam<BlkifAbi> {};

INSTANTIATE_TEST_SUITE_P(All, VbdIndirectAbiTest,
                         testing::Values(BlkifAbi::x86_64, BlkifAbi::x86_32), [](const auto& abi) {
                           return abi.param == BlkifAbi::x86_32 ? "x86_32" : "x86_64";
                         });

TEST_P(VbdIndirectAbiTest, WritesAndReadsBack) {
  Bench bench(with_indirect(GetParam()));
  ASSERT_TRUE(bench.connect(offered()));
  const std::vector<std::byte> data = pattern(kSegments * kXenPageBytes, 5);
  const FakeFrontend::Answer written = bench.answer(bench.frontend->write(100, data));
  EXPECT_EQ(written.status, kBlkifOkay);
  EXPECT_EQ(written.operation, kBlkifWrite) << "an answer has the operation inside";
  EXPECT_EQ(bench.memory.submitted(), 1U) << "one request, whatever its size";
  const FakeFrontend::Answer read =
      bench.answer(bench.frontend->read(100, kSegments * kSectorsPerPage));
  EXPECT_EQ(read.status, kBlkifOkay);
  EXPECT_EQ(read.operation, kBlkifRead);
  EXPECT_EQ(read.data, data);
  EXPECT_EQ(bench.vbd->statistics().written_sectors, kSegments * kSectorsPerPage);
}

// Direct and indirect ones, with segments that begin and end inside their pages, in the same turns.
TEST(VbdIndirect, MixedWithDirectOnes) {
  Bench bench(with_indirect(BlkifAbi::x86_64, 4));
  ASSERT_TRUE(bench.connect(offered()));
  SimRandom random(7);
  constexpr std::uint32_t kRegionSectors = kSegments * 4;
  const std::uint64_t regions = kDiskSectors / kRegionSectors;
  ASSERT_GE(regions, 4U);
  for (int round = 0; round < 50; ++round) {
    std::map<std::uint64_t, std::vector<std::byte>> written;
    std::map<std::uint64_t, FakeFrontend::RequestId> ids;
    for (std::uint64_t region = 0; region < regions; ++region) {
      FakeFrontend::Layout layout;
      layout.first_sector = static_cast<std::uint8_t>(random.next() % 4);
      layout.sectors_per_segment = static_cast<std::uint8_t>(1 + random.next() % 4);
      const std::size_t segments = 1 + random.next() % kSegments;
      written[region] = pattern(segments * layout.sectors_per_segment * kSectorBytes,
                                static_cast<std::uint32_t>(random.next()));
      const auto id =
          bench.frontend->write(region * kRegionSectors, written[region], layout, region);
      ASSERT_TRUE(id);
      ids[region] = *id;
    }
    bench.frontend->push();
    bench.reactor.run_until_idle();
    for (const auto& [region, id] : ids) {
      EXPECT_EQ(bench.frontend->take_completion(id)->status, kBlkifOkay);
    }
    for (const auto& [region, data] : written) {
      const auto answer = bench.answer(bench.frontend->read(
          region * kRegionSectors, static_cast<std::uint32_t>(data.size() / kSectorBytes)));
      EXPECT_EQ(answer.data, data);
    }
  }
  EXPECT_EQ(bench.vbd->in_flight(), 0U);
}

class VbdIndirectRefusalTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.connect(offered())); }

  // Of one segment, described in the spare page.
  BlkifRequest good() {
    const BlkifSegment segment{bench_.frontend->spare_read_only_reference(), 0, 7, 0};
    std::memcpy(bench_.frontend->spare_page().data(), &segment, sizeof(segment));
    BlkifRequest request;
    request.operation = kBlkifIndirect;
    request.indirect_operation = kBlkifWrite;
    request.segment_count = 1;
    request.sector = 1024;
    request.indirect_references[0] = bench_.frontend->spare_reference();
    return request;
  }

  // The bad one between good ones, direct and indirect.
  std::int16_t answer_to(const BlkifRequest& request) {
    const std::vector<std::byte> large = pattern(32 * kXenPageBytes, 3);
    const auto before = bench_.frontend->write(0, large);
    const auto bad = bench_.frontend->raw(request);
    const auto after = bench_.frontend->write(512, pattern(4096, 1));
    const FakeFrontend::Answer answer = bench_.answer(bad);
    EXPECT_EQ(answer.operation, request.indirect_operation);
    EXPECT_EQ(bench_.answer(before).status, kBlkifOkay);
    EXPECT_EQ(bench_.answer(after).status, kBlkifOkay);
    EXPECT_EQ(bench_.answer(bench_.frontend->read(0, 256)).data, large);
    EXPECT_TRUE(bench_.broken.empty());
    return answer.status;
  }

  Bench bench_{with_indirect()};
};

TEST_F(VbdIndirectRefusalTest, AGoodRawRequestIsNotRefused) {
  EXPECT_EQ(answer_to(good()), kBlkifOkay);
  EXPECT_EQ(bench_.vbd->statistics().refused, 0U);
}

TEST_F(VbdIndirectRefusalTest, RejectsOtherOperationsInside) {
  for (const std::uint8_t operation : {kBlkifDiscard, kBlkifIndirect, std::uint8_t{200}}) {
    BlkifRequest request = good();
    request.indirect_operation = operation;
    EXPECT_EQ(answer_to(request), kBlkifError) << int{operation};
  }
}

TEST_F(VbdIndirectRefusalTest, RejectsNoSegments) {
  BlkifRequest request = good();
  request.segment_count = 0;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdIndirectRefusalTest, RejectsMoreSegmentsThanWereOffered) {
  BlkifRequest request = good();
  request.segment_count = kSegments + 1;
  EXPECT_EQ(answer_to(request), kBlkifError);
  request.segment_count = 65535;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdIndirectRefusalTest, RejectsDescriptorsInAPageThatIsNotGranted) {
  BlkifRequest request = good();
  request.indirect_references[0] = 0xffffffffU;
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.vbd->statistics().refused, 1U);
}

TEST_F(VbdIndirectRefusalTest, RejectsSegmentsThatAreNotGranted) {
  BlkifRequest request = good();
  const BlkifSegment segment{0xffffffffU, 0, 7, 0};
  std::memcpy(bench_.frontend->spare_page().data(), &segment, sizeof(segment));
  const std::uint64_t submitted = bench_.memory.submitted();
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.memory.submitted(), submitted + 3) << "the bad write must not reach the disk";
}

TEST_F(VbdIndirectRefusalTest, RejectsSectorsBeyondThePage) {
  BlkifRequest request = good();
  const BlkifSegment segment{bench_.frontend->spare_reference(), 3, 8, 0};
  std::memcpy(bench_.frontend->spare_page().data(), &segment, sizeof(segment));
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdIndirectRefusalTest, RejectsBeyondEndOfDisk) {
  BlkifRequest request = good();
  request.sector = kDiskSectors - 7;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST(VbdIndirect, RejectsWhatWasNotOffered) {
  Bench bench(with_indirect());
  ASSERT_TRUE(bench.connect());
  const FakeFrontend::Answer answer =
      bench.answer(bench.frontend->write(0, pattern(32 * kXenPageBytes, 3)));
  EXPECT_EQ(answer.status, kBlkifNotSupported);
  EXPECT_EQ(answer.operation, kBlkifWrite);
  EXPECT_EQ(bench.memory.submitted(), 0U);
}

TEST(VbdIndirect, Xsa155DescriptorsThatChangeAfterTheCopyAreNotSeen) {
  Bench bench(with_indirect());
  ASSERT_TRUE(bench.connect(offered()));
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const auto id = bench.frontend->read(0, 256);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  ASSERT_EQ(bench.disk.held(), 1U);
  const auto page = bench.frontend->descriptor_page(*id);
  std::fill(page.begin(), page.end(), std::byte{0xff});
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->take_completion(*id)->status, kBlkifOkay);
}

// --- bounds ------------------------------------------------------------------------------------

// A ring of 512 requests of 64 pages and one that describes them, of which a quarter may be under way.
TEST(VbdIndirect, TheRingWaitsWhereTooMuchIsUnderWay) {
  Bench bench(with_indirect(BlkifAbi::x86_64, 16));
  ASSERT_TRUE(bench.connect(offered()));
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  std::deque<FakeFrontend::RequestId> ids;
  while (const auto id = bench.frontend->read(0, kSegments * kSectorsPerPage)) {
    ids.push_back(*id);
  }
  ASSERT_EQ(ids.size(), 512U);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  const std::uint32_t at_once = RequestRoom().most_pages() / (kSegments + 1);
  EXPECT_EQ(bench.disk.held(), at_once);
  EXPECT_EQ(bench.vbd->in_flight(), at_once);
  EXPECT_EQ(bench.vbd->statistics().waits_for_room, 1U);
  // Each answer makes room for one more.
  bench.disk.release(1);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.disk.held(), at_once);
  EXPECT_EQ(bench.vbd->statistics().waits_for_room, 2U);
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) { return FaultyDisk::Action{}; });
  bench.disk.release();
  bench.reactor.run_until_idle();
  for (const FakeFrontend::RequestId id : ids) {
    EXPECT_EQ(bench.frontend->take_completion(id)->status, kBlkifOkay);
  }
  EXPECT_EQ(bench.vbd->in_flight(), 0U);
  // And the doorbell is heard again.
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

// However a guest mixes its requests, buffers that have held large ones do not stay for ever.
TEST(VbdIndirect, MemoryIsGivenBackBeyondABound) {
  RequestRoom room;
  FakeFrontend::Options options = with_indirect(BlkifAbi::x86_64, 16);
  options.indirect_segments = kMaxIndirectSegments;
  Bench bench(options);
  VbdOptions vbd_options = offered(kMaxIndirectSegments);
  vbd_options.room = &room;
  ASSERT_TRUE(bench.connect(vbd_options));
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  std::size_t most = 0;
  // Small ones hold the slots that were large, so that the next large ones get fresh slots.
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 12; ++i) {
      (void)bench.frontend->read(0, kMaxIndirectSegments * kSectorsPerPage);
    }
    bench.frontend->push();
    bench.reactor.run_until_idle();
    most = std::max(most, room.resident_bytes());
    bench.disk.release();
    bench.reactor.run_until_idle();
    for (int i = 0; i < 12; ++i) {
      (void)bench.frontend->read(0, 1);
    }
    bench.frontend->push();
    bench.reactor.run_until_idle();
  }
  const std::size_t warm = room.most_pages() * kXenPageBytes;
  EXPECT_GT(most, warm / 2);
  EXPECT_LE(most, warm + 12 * (kMaxIndirectSegments + 1) * kXenPageBytes);
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_LE(room.resident_bytes(), warm);
}

}  // namespace
}  // namespace iscsi_blkback
