// From a request as a guest wrote it (already copied out of the ring) to one that may be executed,
// or to one precise reason why not. Pure functions: nothing here looks at guest memory again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/block_device.h"
#include "blkback/ring/blkif_abi.h"
#include "blkback/xen/grant_table.h"

namespace iscsi_blkback {

// What a guest may ask of this disk. Sectors are 512 bytes, always (blkif.h since Xen 4.20; older
// frontends agree as long as sector-size is 512).
struct RequestLimits {
  std::uint64_t sector_count = 0;
  std::uint32_t sectors_per_block = 1;      // a power of two: the LUN's logical block
  std::uint32_t max_transfer_sectors = 0;   // 0: no limit below that of the protocol
  std::uint32_t max_indirect_segments = 0;  // that the guest was offered; 0: none were
  bool read_only = false;
  bool discards = false;  // the LUN has them, and the guest was offered them

  [[nodiscard]] static RequestLimits of(const Geometry& geometry, bool read_only_disk);
};

// One run of bytes inside one granted page; at least 512, never beyond the page.
struct RequestSegment {
  GrantReference reference = 0;
  std::uint16_t offset_bytes = 0;
  std::uint16_t length_bytes = 0;
};

struct ParsedRequest {
  BlockOperation operation = BlockOperation::flush;
  std::uint64_t sector = 0;
  std::uint32_t sector_count = 0;  // the sum of the segments; 0 for flush only
  std::span<const RequestSegment> segments;
  bool flushes_before = false;  // of a write: what was answered before it is on the medium first
  bool is_barrier = false;      // nothing is under way beside it, and it is on the medium itself
};

// The most that is offered: a MiB, as Linux's own backend does. Their descriptors fit into one page.
inline constexpr std::uint32_t kMaxIndirectSegments = 256;
static_assert(kMaxIndirectSegments * sizeof(BlkifSegment) <= kXenPageBytes);
inline constexpr std::size_t kMaxRequestBytes = kMaxIndirectSegments * kXenPageBytes;

enum class Refusal : std::uint8_t {
  none,
  operation_not_supported,  // answered with EOPNOTSUPP; everything else with ERROR
  no_segments,              // a read or write of nothing
  too_many_segments,
  bad_indirect_operation,  // none that has data
  descriptors_not_copied,  // the guest's page of them
  bad_sectors_in_page,     // first_sector > last_sector, or last_sector beyond the page
  sector_overflow,         // the range wraps at 2^64
  beyond_end_of_disk,
  write_to_read_only_disk,
  not_aligned_to_block,  // start or length is no multiple of the LUN's logical block
  too_large_for_device,  // more than the LUN takes in one command
  discard_too_large,     // 2^32 sectors or more
};

[[nodiscard]] const char* to_string(Refusal refusal);

// The status that a refused request is answered with (BLKIF_RSP_*).
[[nodiscard]] std::int16_t response_status(Refusal refusal);

// Of kBlkifIndirect, before its descriptors are copied: whether they are worth it. After that,
// segment_count of them are in the page of indirect_references[0], from its start on.
[[nodiscard]] Refusal check_indirect(const BlkifRequest& request, const RequestLimits& limits);

// descriptors: of kBlkifIndirect, copied, as many as segment_count says; else they are the request's.
// into: where the segments are put; room for as many as there are. parsed is meaningful only when
// the answer is Refusal::none.
[[nodiscard]] Refusal parse_request(const BlkifRequest& request,
                                    std::span<const BlkifSegment> descriptors,
                                    const RequestLimits& limits, std::span<RequestSegment> into,
                                    ParsedRequest& parsed);

}  // namespace iscsi_blkback
