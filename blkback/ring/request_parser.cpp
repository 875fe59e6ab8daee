#include "blkback/ring/request_parser.h"

#include <limits>

namespace iscsi_blkback {

RequestLimits RequestLimits::of(const Geometry& geometry, bool read_only_disk) {
  RequestLimits limits;
  limits.sector_count = geometry.sector_count;
  limits.sectors_per_block = geometry.logical_block_bytes / kSectorBytes;
  limits.max_transfer_sectors = geometry.max_transfer_sectors;
  limits.read_only = read_only_disk || geometry.read_only;
  limits.discards = geometry.discard_granularity_bytes != 0;
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
    case Refusal::bad_indirect_operation:
      return "its indirect operation is none that has data";
    case Refusal::descriptors_not_copied:
      return "the page of its segments could not be copied";
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
    case Refusal::discard_too_large:
      return "it discards 2 TiB or more at once";
  }
  return "?";
}

std::int16_t response_status(Refusal refusal) {
  return refusal == Refusal::operation_not_supported ? kBlkifNotSupported : kBlkifError;
}

namespace {

Refusal check_count(std::uint32_t segment_count, std::uint32_t most) {
  if (segment_count == 0) {
    return Refusal::no_segments;
  }
  return segment_count > most ? Refusal::too_many_segments : Refusal::none;
}

Refusal parse_segments(std::span<const BlkifSegment> descriptors, std::span<RequestSegment> into,
                       ParsedRequest& parsed) {
  parsed.sector_count = 0;
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    const BlkifSegment& segment = descriptors[i];
    if (segment.first_sector > segment.last_sector || segment.last_sector >= kSectorsPerPage) {
      return Refusal::bad_sectors_in_page;
    }
    const std::uint32_t sectors = segment.last_sector - segment.first_sector + 1U;
    into[i].reference = segment.reference;
    into[i].offset_bytes = static_cast<std::uint16_t>(segment.first_sector * kSectorBytes);
    into[i].length_bytes = static_cast<std::uint16_t>(sectors * kSectorBytes);
    parsed.sector_count += sectors;
  }
  parsed.segments = into.first(descriptors.size());
  return Refusal::none;
}

Refusal check_range(std::uint64_t sector, std::uint64_t sector_count, const RequestLimits& limits) {
  if (sector + sector_count < sector) {
    return Refusal::sector_overflow;
  }
  if (sector + sector_count > limits.sector_count) {
    return Refusal::beyond_end_of_disk;
  }
  const std::uint64_t block_mask = limits.sectors_per_block - 1;
  return ((sector | sector_count) & block_mask) != 0 ? Refusal::not_aligned_to_block
                                                     : Refusal::none;
}

Refusal parse_discard(const BlkifRequest& request, const RequestLimits& limits,
                      ParsedRequest& parsed) {
  parsed.operation = BlockOperation::discard;
  parsed.segments = {};
  // Nobody can promise that for a LUN.
  if (!limits.discards || (request.discard_flags & kBlkifDiscardSecure) != 0) {
    return Refusal::operation_not_supported;
  }
  if (limits.read_only) {
    return Refusal::write_to_read_only_disk;
  }
  if (request.discard_sectors == 0) {
    return Refusal::no_segments;
  }
  if (const Refusal refusal = check_range(request.sector, request.discard_sectors, limits);
      refusal != Refusal::none) {
    return refusal;
  }
  if (request.discard_sectors > std::numeric_limits<std::uint32_t>::max()) {
    return Refusal::discard_too_large;
  }
  parsed.sector = request.sector;
  parsed.sector_count = static_cast<std::uint32_t>(request.discard_sectors);
  return Refusal::none;
}

}  // namespace

Refusal check_indirect(const BlkifRequest& request, const RequestLimits& limits) {
  if (limits.max_indirect_segments == 0) {
    return Refusal::operation_not_supported;
  }
  switch (request.indirect_operation) {
    case kBlkifRead:
    case kBlkifWrite:
    case kBlkifWriteBarrier:  // FreeBSD's frontend, against blkif.h
    case kBlkifFlush:
      break;
    default:
      return Refusal::bad_indirect_operation;
  }
  return check_count(request.segment_count, limits.max_indirect_segments);
}

Refusal parse_request(const BlkifRequest& request, std::span<const BlkifSegment> descriptors,
                      const RequestLimits& limits, std::span<RequestSegment> into,
                      ParsedRequest& parsed) {
  const bool is_indirect = request.operation == kBlkifIndirect;
  const std::uint8_t operation = is_indirect ? request.indirect_operation : request.operation;
  parsed.is_barrier = operation == kBlkifWriteBarrier;
  parsed.flushes_before = false;
  switch (operation) {
    case kBlkifRead:
      parsed.operation = BlockOperation::read;
      break;
    case kBlkifWrite:
      parsed.operation = BlockOperation::write;
      if (limits.read_only) {
        return Refusal::write_to_read_only_disk;
      }
      break;
    case kBlkifWriteBarrier:
    case kBlkifFlush:
      if (request.segment_count == 0) {
        parsed.operation = BlockOperation::flush;
        parsed.sector = 0;
        parsed.sector_count = 0;
        parsed.segments = {};
        return Refusal::none;
      }
      // As Linux's xen-blkback and QEMU have it: a flush, then the write.
      parsed.operation = BlockOperation::write;
      parsed.flushes_before = true;
      if (limits.read_only) {
        return Refusal::write_to_read_only_disk;
      }
      break;
    case kBlkifDiscard:
      return parse_discard(request, limits, parsed);
    default:
      return Refusal::operation_not_supported;
  }
  parsed.sector = request.sector;
  if (!is_indirect) {
    if (const Refusal refusal = check_count(request.segment_count, kMaxDirectSegments);
        refusal != Refusal::none) {
      return refusal;
    }
    descriptors = std::span(request.segments).first(request.segment_count);
  }
  if (const Refusal refusal = parse_segments(descriptors, into, parsed); refusal != Refusal::none) {
    return refusal;
  }
  if (const Refusal refusal = check_range(parsed.sector, parsed.sector_count, limits);
      refusal != Refusal::none) {
    return refusal;
  }
  return limits.max_transfer_sectors != 0 && parsed.sector_count > limits.max_transfer_sectors
             ? Refusal::too_large_for_device
             : Refusal::none;
}

}  // namespace iscsi_blkback
