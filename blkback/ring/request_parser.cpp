#include "blkback/ring/request_parser.h"

namespace iscsi_blkback {

RequestLimits RequestLimits::of(const Geometry& geometry, bool read_only_disk) {
  RequestLimits limits;
  limits.sector_count = geometry.sector_count;
  limits.sectors_per_block = geometry.logical_block_bytes / kSectorBytes;
  limits.max_transfer_sectors = geometry.max_transfer_sectors;
  limits.read_only = read_only_disk || geometry.read_only;
  return limits;
}

const char* to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::none:
      return "no refusal";
    case Refusal::operation_not_supported:
      return "the operation is not supported";
    case Refusal::no_segments:
      return "it has no segments";
    case Refusal::too_many_segments:
      return "it has more segments than the protocol allows";
    case Refusal::flush_with_data:
      return "a flush must not have segments";
    case Refusal::bad_sectors_in_page:
      return "a segment's sectors are not inside its page";
    case Refusal::sector_overflow:
      return "its sector range overflows";
    case Refusal::beyond_end_of_disk:
      return "it reaches beyond the end of the disk";
    case Refusal::write_to_read_only_disk:
      return "the disk is read-only";
    case Refusal::not_aligned_to_block:
      return "it is not aligned to the LUN's logical blocks";
    case Refusal::too_large_for_device:
      return "it is larger than the LUN's maximum transfer length";
  }
  return "?";
}

std::int16_t response_status(Refusal refusal) {
  return refusal == Refusal::operation_not_supported ? kBlkifNotSupported : kBlkifError;
}

namespace {

Refusal parse_segments(const BlkifRequest& request, ParsedRequest& parsed) {
  if (request.segment_count == 0) {
    return Refusal::no_segments;
  }
  if (request.segment_count > kMaxDirectSegments) {
    return Refusal::too_many_segments;
  }
  parsed.segment_count = request.segment_count;
  parsed.sector_count = 0;
  for (std::size_t i = 0; i < parsed.segment_count; ++i) {
    const BlkifSegment& segment = request.segments[i];
    if (segment.first_sector > segment.last_sector || segment.last_sector >= kSectorsPerPage) {
      return Refusal::bad_sectors_in_page;
    }
    const std::uint32_t sectors = segment.last_sector - segment.first_sector + 1U;
    parsed.segments[i].reference = segment.reference;
    parsed.segments[i].offset_bytes =
        static_cast<std::uint16_t>(segment.first_sector * kSectorBytes);
    parsed.segments[i].length_bytes = static_cast<std::uint16_t>(sectors * kSectorBytes);
    parsed.sector_count += sectors;
  }
  return Refusal::none;
}

Refusal check_range(const ParsedRequest& parsed, const RequestLimits& limits) {
  if (parsed.sector + parsed.sector_count < parsed.sector) {
    return Refusal::sector_overflow;
  }
  if (parsed.sector + parsed.sector_count > limits.sector_count) {
    return Refusal::beyond_end_of_disk;
  }
  const std::uint64_t block_mask = limits.sectors_per_block - 1;
  if (((parsed.sector | parsed.sector_count) & block_mask) != 0) {
    return Refusal::not_aligned_to_block;
  }
  if (limits.max_transfer_sectors != 0 && parsed.sector_count > limits.max_transfer_sectors) {
    return Refusal::too_large_for_device;
  }
  return Refusal::none;
}

}  // namespace

Refusal parse_request(const BlkifRequest& request, const RequestLimits& limits,
                      ParsedRequest& parsed) {
  switch (request.operation) {
    case kBlkifRead:
      parsed.operation = BlockOperation::read;
      break;
    case kBlkifWrite:
      parsed.operation = BlockOperation::write;
      if (limits.read_only) {
        return Refusal::write_to_read_only_disk;
      }
      break;
    case kBlkifFlush:
      parsed.operation = BlockOperation::flush;
      parsed.sector = 0;
      parsed.sector_count = 0;
      parsed.segment_count = 0;
      return request.segment_count == 0 ? Refusal::none : Refusal::flush_with_data;
    default:
      return Refusal::operation_not_supported;
  }
  parsed.sector = request.sector;
  if (const Refusal refusal = parse_segments(request, parsed); refusal != Refusal::none) {
    return refusal;
  }
  return check_range(parsed, limits);
}

}  // namespace iscsi_blkback
