// VbdRequest: one request of a guest on its way through a VbdQueue, from its copy out of the ring to
// its answer; a slot of the queue's pool. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "blkback/ring/blkif_abi.h"
#include "blkback/ring/request_parser.h"

namespace iscsi_blkback {

// The segments of an indirect request: as the guest wrote them, copied once, and checked.
struct IndirectSegments {
  std::array<BlkifSegment, kMaxIndirectSegments> descriptors;
  std::array<RequestSegment, kMaxIndirectSegments> segments;
};
static_assert(sizeof(IndirectSegments) == kXenPageBytes);

// As BlockRequest it is what the device is asked for at the moment.
struct VbdRequest : BlockRequest, ListHook<VbdRequest> {
  // Of a write that the guest wants flushed, and of all others.
  enum class Step : std::uint8_t { only, flush_before, write, flush_after };

  std::size_t index = 0;  // in the pool
  BlkifRequest request;
  std::int16_t response = kBlkifOkay;
  bool submitted = false;   // false: refused, or its data could not be copied
  bool held = false;        // a flush that has failed before
  bool unanswered = false;  // a failed flush whose ring goes: the guest is told nothing
  Step step = Step::only;
  std::uint32_t first_copy = 0;  // of the batch of grant copies at hand
  std::uint32_t pages_held = 0;  // of what the disk's requests may have under way
  TimePoint accepted_at{};
  ParsedRequest parsed;
  std::array<RequestSegment, kMaxDirectSegments> direct_segments;
  IndirectSegments* indirect = nullptr;  // null: none are offered
  std::byte* buffer = nullptr;  // in one piece: the initiator sends and receives it as such

  // With what the guest has written, and nothing else of what was here before.
  void begin(const BlkifRequest& written, TimePoint now) {
    request = written;
    response = kBlkifOkay;
    submitted = held = unanswered = false;
    step = Step::only;
    pages_held = 0;
    accepted_at = now;
  }
  [[nodiscard]] bool is_indirect() const { return request.operation == kBlkifIndirect; }
  // What a response says.
  [[nodiscard]] std::uint8_t ring_operation() const {
    return is_indirect() ? request.indirect_operation : request.operation;
  }
};
using VbdRequestList = IntrusiveList<VbdRequest, VbdRequest>;

}  // namespace iscsi_blkback
