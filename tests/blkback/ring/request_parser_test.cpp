#include "blkback/ring/request_parser.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <memory>
#include <span>
#include <vector>

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

// What comes of it, and where its segments are.
struct Parsed : ParsedRequest {
  Refusal refusal = Refusal::none;
  std::array<RequestSegment, kMaxIndirectSegments> storage;
};

std::unique_ptr<Parsed> parsed_of(const BlkifRequest& request, const RequestLimits& limits,
                                  std::span<const BlkifSegment> descriptors = {}) {
  auto parsed = std::make_unique<Parsed>();
  parsed->refusal = parse_request(request, descriptors, limits, parsed->storage, *parsed);
  return parsed;
}

Refusal parse(const BlkifRequest& request, const RequestLimits& limits) {
  return parsed_of(request, limits)->refusal;
}

RequestLimits indirect_limits() {
  RequestLimits offered = limits();
  offered.max_indirect_segments = 32;
  return offered;
}

BlkifRequest indirect(std::uint8_t operation, std::uint16_t segments) {
  BlkifRequest request;
  request.operation = kBlkifIndirect;
  request.indirect_operation = operation;
  request.segment_count = segments;
  request.sector = 16;
  return request;
}

TEST(RequestParser, AcceptsARead) {
  BlkifRequest read = request(kBlkifRead, 16, 3);
  read.segments[0].first_sector = 5;
  read.segments[2].last_sector = 0;
  const auto whole = parsed_of(read, limits());
  const ParsedRequest& parsed = *whole;
  ASSERT_EQ(whole->refusal, Refusal::none);
  EXPECT_EQ(parsed.operation, BlockOperation::read);
  EXPECT_EQ(parsed.sector, 16U);
  EXPECT_EQ(parsed.sector_count, 3U + 8U + 1U);
  ASSERT_EQ(parsed.segments.size(), 3U);
  EXPECT_EQ(parsed.segments[0].reference, 100U);
  EXPECT_EQ(parsed.segments[0].offset_bytes, 5 * 512);
  EXPECT_EQ(parsed.segments[0].length_bytes, 3 * 512);
  EXPECT_EQ(parsed.segments[1].length_bytes, 4096);
  EXPECT_EQ(parsed.segments[2].reference, 102U);
  EXPECT_EQ(parsed.segments[2].length_bytes, 512);
}

TEST(RequestParser, AcceptsAWriteOfElevenSegments) {
  const auto parsed = parsed_of(request(kBlkifWrite, 0, 11), limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::write);
  EXPECT_EQ(parsed->sector_count, 88U);
}

TEST(RequestParser, AcceptsAFlushWhateverItsSector) {
  const auto parsed = parsed_of(request(kBlkifFlush, ~0ULL, 0), limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::flush);
  EXPECT_EQ(parsed->sector_count, 0U);
  EXPECT_TRUE(parsed->segments.empty());
}

TEST(RequestParser, AcceptsTheLastSector) {
  BlkifRequest read = request(kBlkifRead, kSectors - 1, 1);
  read.segments[0].last_sector = 0;
  EXPECT_EQ(parse(read, limits()), Refusal::none);
}

TEST(RequestParser, RejectsUnknownOperations) {
  for (int operation = 0; operation < 256; ++operation) {
    if (operation == kBlkifRead || operation == kBlkifWrite || operation == kBlkifFlush ||
        operation == kBlkifWriteBarrier || operation == kBlkifIndirect) {
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

TEST(RequestParser, AFlushWithDataIsAWrite) {
  const auto parsed = parsed_of(request(kBlkifFlush, 8, 2), limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::write);
  EXPECT_TRUE(parsed->flushes_before);
  EXPECT_FALSE(parsed->is_barrier);
  EXPECT_EQ(parsed->sector_count, 16U);
}

TEST(RequestParser, ABarrierIsAWriteOrAFlush) {
  auto parsed = parsed_of(request(kBlkifWriteBarrier, 8, 2), limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::write);
  EXPECT_TRUE(parsed->flushes_before && parsed->is_barrier);
  parsed = parsed_of(request(kBlkifWriteBarrier, 8, 0), limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::flush);
  EXPECT_TRUE(parsed->is_barrier);
}

TEST(RequestParser, RejectsABarrierWithTooManySegments) {
  EXPECT_EQ(parse(request(kBlkifWriteBarrier, 0, 12), limits()), Refusal::too_many_segments);
  EXPECT_EQ(parse(request(kBlkifFlush, 0, 12), limits()), Refusal::too_many_segments);
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
  EXPECT_EQ(parse(request(kBlkifFlush, 0, 1), read_only), Refusal::write_to_read_only_disk);
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

// --- indirect: the segments are in a page of their own

TEST(RequestParser, AcceptsAnIndirectWrite) {
  const BlkifRequest write = indirect(kBlkifWrite, 32);
  ASSERT_EQ(check_indirect(write, indirect_limits()), Refusal::none);
  std::vector<BlkifSegment> descriptors;
  for (std::uint32_t i = 0; i < 32; ++i) {
    descriptors.push_back({500 + i, 0, 7, 0});
  }
  descriptors[31] = {900, 2, 3, 0};
  const auto parsed = parsed_of(write, indirect_limits(), descriptors);
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::write);
  EXPECT_EQ(parsed->sector, 16U);
  EXPECT_EQ(parsed->sector_count, 31U * 8U + 2U);
  ASSERT_EQ(parsed->segments.size(), 32U);
  EXPECT_EQ(parsed->segments[11].reference, 511U);
  EXPECT_EQ(parsed->segments[31].reference, 900U);
  EXPECT_EQ(parsed->segments[31].offset_bytes, 1024);
  EXPECT_EQ(parsed->segments[31].length_bytes, 1024);
}

TEST(RequestParser, AcceptsAnIndirectReadOfOneSegment) {
  const BlkifRequest read = indirect(kBlkifRead, 1);
  const BlkifSegment descriptor{5, 0, 0, 0};
  EXPECT_EQ(check_indirect(read, indirect_limits()), Refusal::none);
  const auto parsed = parsed_of(read, indirect_limits(), {&descriptor, 1});
  EXPECT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::read);
  EXPECT_EQ(parsed->sector_count, 1U);
}

TEST(RequestParser, RejectsIndirectThatWasNotOffered) {
  EXPECT_EQ(check_indirect(indirect(kBlkifRead, 1), limits()), Refusal::operation_not_supported);
}

TEST(RequestParser, RejectsIndirectOperationsWithoutData) {
  for (int operation = 0; operation < 256; ++operation) {
    if (operation > kBlkifFlush) {
      EXPECT_EQ(
          check_indirect(indirect(static_cast<std::uint8_t>(operation), 1), indirect_limits()),
          Refusal::bad_indirect_operation)
          << operation;
    }
  }
}

// As FreeBSD's frontend sends them.
TEST(RequestParser, AcceptsAnIndirectBarrier) {
  const BlkifRequest barrier = indirect(kBlkifWriteBarrier, 1);
  const BlkifSegment descriptor{5, 0, 7, 0};
  EXPECT_EQ(check_indirect(barrier, indirect_limits()), Refusal::none);
  const auto parsed = parsed_of(barrier, indirect_limits(), {&descriptor, 1});
  EXPECT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::write);
  EXPECT_TRUE(parsed->is_barrier && parsed->flushes_before);
}

TEST(RequestParser, RejectsNoIndirectSegments) {
  EXPECT_EQ(check_indirect(indirect(kBlkifWrite, 0), indirect_limits()), Refusal::no_segments);
}

TEST(RequestParser, RejectsMoreIndirectSegmentsThanWereOffered) {
  EXPECT_EQ(check_indirect(indirect(kBlkifRead, 33), indirect_limits()),
            Refusal::too_many_segments);
  EXPECT_EQ(check_indirect(indirect(kBlkifRead, 65535), indirect_limits()),
            Refusal::too_many_segments);
}

TEST(RequestParser, RejectsIndirectSectorsBeyondThePage) {
  const BlkifSegment descriptor{5, 0, 8, 0};
  EXPECT_EQ(parsed_of(indirect(kBlkifRead, 1), indirect_limits(), {&descriptor, 1})->refusal,
            Refusal::bad_sectors_in_page);
}

TEST(RequestParser, RejectsAnIndirectWriteToAReadOnlyDisk) {
  RequestLimits read_only = indirect_limits();
  read_only.read_only = true;
  const BlkifSegment descriptor{5, 0, 7, 0};
  EXPECT_EQ(parsed_of(indirect(kBlkifWrite, 1), read_only, {&descriptor, 1})->refusal,
            Refusal::write_to_read_only_disk);
}

TEST(RequestParser, RejectsAnIndirectRequestBeyondEndOfDisk) {
  BlkifRequest read = indirect(kBlkifRead, 1);
  read.sector = kSectors - 7;
  const BlkifSegment descriptor{5, 0, 7, 0};
  EXPECT_EQ(parsed_of(read, indirect_limits(), {&descriptor, 1})->refusal,
            Refusal::beyond_end_of_disk);
}

// --- discards

BlkifRequest discard(std::uint64_t sector, std::uint64_t sectors) {
  BlkifRequest request;
  request.operation = kBlkifDiscard;
  request.sector = sector;
  request.discard_sectors = sectors;
  return request;
}

RequestLimits discard_limits() {
  RequestLimits offered = limits();
  offered.discards = true;
  return offered;
}

TEST(RequestParser, AcceptsADiscardOfTheWholeDisk) {
  const auto parsed = parsed_of(discard(0, kSectors), discard_limits());
  ASSERT_EQ(parsed->refusal, Refusal::none);
  EXPECT_EQ(parsed->operation, BlockOperation::discard);
  EXPECT_EQ(parsed->sector, 0U);
  EXPECT_EQ(parsed->sector_count, kSectors);
  EXPECT_TRUE(parsed->segments.empty());
}

TEST(RequestParser, RejectsADiscardOfNothing) {
  EXPECT_EQ(parse(discard(8, 0), discard_limits()), Refusal::no_segments);
}

TEST(RequestParser, RejectsADiscardOfPartsOfBlocks) {
  RequestLimits blocks = discard_limits();
  blocks.sectors_per_block = 8;
  EXPECT_EQ(parse(discard(8, 16), blocks), Refusal::none);
  EXPECT_EQ(parse(discard(8, 15), blocks), Refusal::not_aligned_to_block);
  EXPECT_EQ(parse(discard(9, 16), blocks), Refusal::not_aligned_to_block);
}

TEST(RequestParser, RejectsDiscardsThatWereNotOffered) {
  EXPECT_EQ(parse(discard(0, 8), limits()), Refusal::operation_not_supported);
}

TEST(RequestParser, RejectsSecureDiscards) {
  BlkifRequest secure = discard(0, 8);
  secure.discard_flags = kBlkifDiscardSecure;
  EXPECT_EQ(parse(secure, discard_limits()), Refusal::operation_not_supported);
}

TEST(RequestParser, RejectsADiscardOfAReadOnlyDisk) {
  RequestLimits read_only = discard_limits();
  read_only.read_only = true;
  EXPECT_EQ(parse(discard(0, 8), read_only), Refusal::write_to_read_only_disk);
}

TEST(RequestParser, RejectsADiscardBeyondEndOfDisk) {
  EXPECT_EQ(parse(discard(0, kSectors + 1), discard_limits()), Refusal::beyond_end_of_disk);
  EXPECT_EQ(parse(discard(kSectors, 1), discard_limits()), Refusal::beyond_end_of_disk);
  EXPECT_EQ(parse(discard(8, ~0ULL), discard_limits()), Refusal::sector_overflow);
}

TEST(RequestParser, RejectsADiscardOfTwoTebibytes) {
  RequestLimits huge = discard_limits();
  huge.sector_count = std::uint64_t{1} << 40;
  EXPECT_EQ(parse(discard(0, (std::uint64_t{1} << 32) - 1), huge), Refusal::none);
  EXPECT_EQ(parse(discard(0, std::uint64_t{1} << 32), huge), Refusal::discard_too_large);
}

TEST(RequestParser, AnswersErrorToEverythingButUnknownOperations) {
  for (const Refusal refusal :
       {Refusal::no_segments, Refusal::too_many_segments, Refusal::bad_indirect_operation,
        Refusal::descriptors_not_copied, Refusal::bad_sectors_in_page, Refusal::sector_overflow,
        Refusal::beyond_end_of_disk, Refusal::write_to_read_only_disk,
        Refusal::not_aligned_to_block, Refusal::too_large_for_device, Refusal::discard_too_large}) {
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
  EXPECT_FALSE(limits.discards);
  geometry.discard_granularity_bytes = 512;
  EXPECT_TRUE(RequestLimits::of(geometry, false).discards);
  EXPECT_TRUE(RequestLimits::of(geometry, true).read_only);
  geometry.read_only = true;
  EXPECT_TRUE(RequestLimits::of(geometry, false).read_only);
}

}  // namespace
}  // namespace iscsi_blkback
