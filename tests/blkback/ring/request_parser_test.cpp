#include "blkback/ring/request_parser.h"

#include <gtest/gtest.h>

#include <limits>

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kSectors = 1000;

RequestLimits limits() {
  RequestLimits limits;
  limits.sector_count = kSectors;
  return limits;
}

// A good request of whole pages.
BlkifRequest request(std::uint8_t operation, std::uint64_t sector, std::uint8_t segments) {
  BlkifRequest request{};
  request.operation = operation;
  request.segment_count = segments;
  request.id = 7;
  request.sector = sector;
  for (std::size_t i = 0; i < kMaxDirectSegments; ++i) {
    request.segments[i] = BlkifSegment{static_cast<std::uint32_t>(100 + i), 0, 7, 0};
  }
  return request;
}

Refusal parse(const BlkifRequest& request, const RequestLimits& limits) {
  ParsedRequest parsed;
  return parse_request(request, limits, parsed);
}

TEST(RequestParser, AcceptsARead) {
  ParsedRequest parsed;
  BlkifRequest read = request(kBlkifRead, 16, 3);
  read.segments[0].first_sector = 5;
  read.segments[2].last_sector = 0;
  ASSERT_EQ(parse_request(read, limits(), parsed), Refusal::none);
  EXPECT_EQ(parsed.operation, BlockOperation::read);
  EXPECT_EQ(parsed.sector, 16U);
  EXPECT_EQ(parsed.sector_count, 3U + 8U + 1U);
  ASSERT_EQ(parsed.segment_count, 3);
  EXPECT_EQ(parsed.segments[0].reference, 100U);
  EXPECT_EQ(parsed.segments[0].offset_bytes, 5 * 512);
  EXPECT_EQ(parsed.segments[0].length_bytes, 3 * 512);
  EXPECT_EQ(parsed.segments[1].length_bytes, 4096);
  EXPECT_EQ(parsed.segments[2].reference, 102U);
  EXPECT_EQ(parsed.segments[2].length_bytes, 512);
}

TEST(RequestParser, AcceptsAWriteOfElevenSegments) {
  ParsedRequest parsed;
  ASSERT_EQ(parse_request(request(kBlkifWrite, 0, 11), limits(), parsed), Refusal::none);
  EXPECT_EQ(parsed.operation, BlockOperation::write);
  EXPECT_EQ(parsed.sector_count, 88U);
}

TEST(RequestParser, AcceptsAFlushWhateverItsSector) {
  ParsedRequest parsed;
  ASSERT_EQ(parse_request(request(kBlkifFlush, ~0ULL, 0), limits(), parsed), Refusal::none);
  EXPECT_EQ(parsed.operation, BlockOperation::flush);
  EXPECT_EQ(parsed.sector_count, 0U);
  EXPECT_EQ(parsed.segment_count, 0);
}

TEST(RequestParser, AcceptsTheLastSector) {
  BlkifRequest read = request(kBlkifRead, kSectors - 1, 1);
  read.segments[0].last_sector = 0;
  EXPECT_EQ(parse(read, limits()), Refusal::none);
}

TEST(RequestParser, RejectsUnknownOperations) {
  for (int operation = 0; operation < 256; ++operation) {
    if (operation == kBlkifRead || operation == kBlkifWrite || operation == kBlkifFlush) {
      continue;
    }
    EXPECT_EQ(parse(request(static_cast<std::uint8_t>(operation), 0, 1), limits()),
              Refusal::operation_not_supported)
        << operation;
  }
  EXPECT_EQ(response_status(Refusal::operation_not_supported), kBlkifNotSupported);
}

TEST(RequestParser, RejectsNoSegments) {
  EXPECT_EQ(parse(request(kBlkifRead, 0, 0), limits()), Refusal::no_segments);
  EXPECT_EQ(parse(request(kBlkifWrite, 0, 0), limits()), Refusal::no_segments);
}

TEST(RequestParser, RejectsTooManySegments) {
  EXPECT_EQ(parse(request(kBlkifRead, 0, 12), limits()), Refusal::too_many_segments);
  EXPECT_EQ(parse(request(kBlkifWrite, 0, 255), limits()), Refusal::too_many_segments);
}

TEST(RequestParser, RejectsFlushWithData) {
  EXPECT_EQ(parse(request(kBlkifFlush, 0, 1), limits()), Refusal::flush_with_data);
}

TEST(RequestParser, RejectsFirstSectorAfterLast) {
  BlkifRequest read = request(kBlkifRead, 0, 2);
  read.segments[1].first_sector = 4;
  read.segments[1].last_sector = 3;
  EXPECT_EQ(parse(read, limits()), Refusal::bad_sectors_in_page);
}

TEST(RequestParser, RejectsLastSectorBeyondThePage) {
  BlkifRequest read = request(kBlkifRead, 0, 2);
  read.segments[1].last_sector = 8;
  EXPECT_EQ(parse(read, limits()), Refusal::bad_sectors_in_page);
  read.segments[1].first_sector = read.segments[1].last_sector = 255;
  EXPECT_EQ(parse(read, limits()), Refusal::bad_sectors_in_page);
}

TEST(RequestParser, IgnoresSegmentsBeyondTheCount) {
  BlkifRequest read = request(kBlkifRead, 0, 2);
  read.segments[2].last_sector = 200;
  EXPECT_EQ(parse(read, limits()), Refusal::none);
}

TEST(RequestParser, RejectsSectorOverflow) {
  EXPECT_EQ(parse(request(kBlkifRead, std::numeric_limits<std::uint64_t>::max() - 3, 1), limits()),
            Refusal::sector_overflow);
}

TEST(RequestParser, RejectsBeyondEndOfDisk) {
  EXPECT_EQ(parse(request(kBlkifRead, kSectors - 7, 1), limits()), Refusal::beyond_end_of_disk);
  EXPECT_EQ(parse(request(kBlkifWrite, kSectors, 1), limits()), Refusal::beyond_end_of_disk);
  EXPECT_EQ(parse(request(kBlkifWrite, 1ULL << 63, 1), limits()), Refusal::beyond_end_of_disk);
}

TEST(RequestParser, RejectsWriteToReadOnlyDisk) {
  RequestLimits read_only = limits();
  read_only.read_only = true;
  EXPECT_EQ(parse(request(kBlkifWrite, 0, 1), read_only), Refusal::write_to_read_only_disk);
  EXPECT_EQ(parse(request(kBlkifRead, 0, 1), read_only), Refusal::none);
  EXPECT_EQ(parse(request(kBlkifFlush, 0, 0), read_only), Refusal::none);
}

TEST(RequestParser, RejectsMisalignedToBlock) {
  RequestLimits blocks = limits();
  blocks.sectors_per_block = 8;
  EXPECT_EQ(parse(request(kBlkifRead, 8, 1), blocks), Refusal::none);
  EXPECT_EQ(parse(request(kBlkifRead, 4, 1), blocks), Refusal::not_aligned_to_block);
  BlkifRequest half = request(kBlkifRead, 8, 1);
  half.segments[0].last_sector = 3;
  EXPECT_EQ(parse(half, blocks), Refusal::not_aligned_to_block);
}

TEST(RequestParser, RejectsTooLargeForDevice) {
  RequestLimits small = limits();
  small.max_transfer_sectors = 16;
  EXPECT_EQ(parse(request(kBlkifRead, 0, 2), small), Refusal::none);
  EXPECT_EQ(parse(request(kBlkifRead, 0, 3), small), Refusal::too_large_for_device);
}

TEST(RequestParser, AnswersErrorToEverythingButUnknownOperations) {
  for (const Refusal refusal :
       {Refusal::no_segments, Refusal::too_many_segments, Refusal::flush_with_data,
        Refusal::bad_sectors_in_page, Refusal::sector_overflow, Refusal::beyond_end_of_disk,
        Refusal::write_to_read_only_disk, Refusal::not_aligned_to_block,
        Refusal::too_large_for_device}) {
    EXPECT_EQ(response_status(refusal), kBlkifError) << to_string(refusal);
  }
}

TEST(RequestLimits, ComeFromDeviceAndDisk) {
  Geometry geometry;
  geometry.sector_count = 80;
  geometry.logical_block_bytes = 4096;
  geometry.max_transfer_sectors = 64;
  RequestLimits limits = RequestLimits::of(geometry, false);
  EXPECT_EQ(limits.sector_count, 80U);
  EXPECT_EQ(limits.sectors_per_block, 8U);
  EXPECT_EQ(limits.max_transfer_sectors, 64U);
  EXPECT_FALSE(limits.read_only);
  EXPECT_TRUE(RequestLimits::of(geometry, true).read_only);
  geometry.read_only = true;
  EXPECT_TRUE(RequestLimits::of(geometry, false).read_only);
}

}  // namespace
}  // namespace iscsi_blkback
