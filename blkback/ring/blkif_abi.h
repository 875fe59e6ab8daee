// The layout of blkif's shared ring in its ABIs, from Xen's public io/blkif.h and io/ring.h (facts
// of the protocol; the macros there cannot express a single fetch, so they are not used). A guest
// states its ABI in the "protocol" node. 64-bit fields are aligned to 8 bytes in x86_64-abi and to
// 4 in x86_32-abi; native is this host's own, which on every 64-bit host is the layout of
// x86_64-abi. Values and pure functions.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace iscsi_blkback {

enum class BlkifAbi : std::uint8_t { native, x86_32, x86_64 };

// BLKIF_OP_*
inline constexpr std::uint8_t kBlkifRead = 0;
inline constexpr std::uint8_t kBlkifWrite = 1;
inline constexpr std::uint8_t kBlkifWriteBarrier = 2;
inline constexpr std::uint8_t kBlkifFlush = 3;
inline constexpr std::uint8_t kBlkifDiscard = 5;
inline constexpr std::uint8_t kBlkifIndirect = 6;

inline constexpr std::uint8_t kBlkifDiscardSecure = 1;  // BLKIF_DISCARD_SECURE

// BLKIF_RSP_*
inline constexpr std::int16_t kBlkifOkay = 0;
inline constexpr std::int16_t kBlkifError = -1;
inline constexpr std::int16_t kBlkifNotSupported = -2;

inline constexpr std::size_t kMaxDirectSegments = 11;  // BLKIF_MAX_SEGMENTS_PER_REQUEST
inline constexpr std::size_t kMaxIndirectPages = 8;    // BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST
inline constexpr std::size_t kMaxRingPages = 16;       // ring-page-order 4
inline constexpr std::uint8_t kSectorsPerPage = 8;     // of 512 bytes

// first_sector and last_sector count 512-byte sectors inside the granted page, both inclusive.
struct BlkifSegment {
  std::uint32_t reference;
  std::uint8_t first_sector;
  std::uint8_t last_sector;
  std::uint16_t padding;
};
static_assert(sizeof(BlkifSegment) == 8);

struct BlkifX86_64 {
  struct Request {
    std::uint8_t operation;
    std::uint8_t segment_count;
    std::uint16_t handle;
    std::uint32_t padding;
    std::uint64_t id;      // the guest's own, echoed verbatim
    std::uint64_t sector;  // always in units of 512 bytes
    std::array<BlkifSegment, kMaxDirectSegments> segments;
  };
  // Of kBlkifIndirect: the segments are in pages of their own.
  struct IndirectRequest {
    std::uint8_t operation;
    std::uint8_t indirect_operation;  // kBlkifRead or kBlkifWrite; a response has it
    std::uint16_t segment_count;
    std::uint32_t padding0;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint16_t handle;
    std::uint16_t padding1;
    std::array<std::uint32_t, kMaxIndirectPages> references;
    std::uint32_t padding2;
  };
  // Of kBlkifDiscard.
  struct DiscardRequest {
    std::uint8_t operation;
    std::uint8_t flags;  // kBlkifDiscardSecure
    std::uint16_t handle;
    std::uint32_t padding0;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint64_t sector_count;
  };
  struct Response {
    std::uint64_t id;
    std::uint8_t operation;
    std::uint8_t padding0;
    std::int16_t status;
    std::uint32_t padding1;
  };
};

#pragma pack(push, 4)
struct BlkifX86_32 {
  struct Request {
    std::uint8_t operation;
    std::uint8_t segment_count;
    std::uint16_t handle;
    std::uint64_t id;
    std::uint64_t sector;
    std::array<BlkifSegment, kMaxDirectSegments> segments;
  };
  struct IndirectRequest {
    std::uint8_t operation;
    std::uint8_t indirect_operation;
    std::uint16_t segment_count;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint16_t handle;
    std::uint16_t padding0;
    std::array<std::uint32_t, kMaxIndirectPages> references;
    std::uint64_t padding1;
  };
  struct DiscardRequest {
    std::uint8_t operation;
    std::uint8_t flags;
    std::uint16_t handle;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint64_t sector_count;
  };
  struct Response {
    std::uint64_t id;
    std::uint8_t operation;
    std::uint8_t padding0;
    std::int16_t status;
  };
};
#pragma pack(pop)

static_assert(std::endian::native == std::endian::little);
static_assert(alignof(std::uint64_t) == 8, "native is taken to be the 64-bit layout");

static_assert(offsetof(BlkifX86_64::Request, id) == 8);
static_assert(offsetof(BlkifX86_64::Request, sector) == 16);
static_assert(offsetof(BlkifX86_64::Request, segments) == 24);
static_assert(sizeof(BlkifX86_64::Request) == 112);
static_assert(offsetof(BlkifX86_64::IndirectRequest, id) == 8);
static_assert(offsetof(BlkifX86_64::IndirectRequest, sector) == 16);
static_assert(offsetof(BlkifX86_64::IndirectRequest, handle) == 24);
static_assert(offsetof(BlkifX86_64::IndirectRequest, references) == 28);
static_assert(sizeof(BlkifX86_64::IndirectRequest) == 64);
static_assert(offsetof(BlkifX86_64::DiscardRequest, id) == 8);
static_assert(offsetof(BlkifX86_64::DiscardRequest, sector) == 16);
static_assert(offsetof(BlkifX86_64::DiscardRequest, sector_count) == 24);
static_assert(offsetof(BlkifX86_64::Response, operation) == 8);
static_assert(offsetof(BlkifX86_64::Response, status) == 10);
static_assert(sizeof(BlkifX86_64::Response) == 16);

static_assert(offsetof(BlkifX86_32::Request, id) == 4);
static_assert(offsetof(BlkifX86_32::Request, sector) == 12);
static_assert(offsetof(BlkifX86_32::Request, segments) == 20);
static_assert(sizeof(BlkifX86_32::Request) == 108);
static_assert(offsetof(BlkifX86_32::IndirectRequest, id) == 4);
static_assert(offsetof(BlkifX86_32::IndirectRequest, sector) == 12);
static_assert(offsetof(BlkifX86_32::IndirectRequest, handle) == 20);
static_assert(offsetof(BlkifX86_32::IndirectRequest, references) == 24);
static_assert(sizeof(BlkifX86_32::IndirectRequest) == 64);
static_assert(offsetof(BlkifX86_32::DiscardRequest, id) == 4);
static_assert(offsetof(BlkifX86_32::DiscardRequest, sector) == 12);
static_assert(offsetof(BlkifX86_32::DiscardRequest, sector_count) == 20);
static_assert(offsetof(BlkifX86_32::Response, operation) == 8);
static_assert(offsetof(BlkifX86_32::Response, status) == 10);
static_assert(sizeof(BlkifX86_32::Response) == 12);

// What the requests of both ABIs and all layouts become once they have been copied out of the ring.
struct BlkifRequest {
  std::uint8_t operation = 0;
  std::uint8_t indirect_operation = 0;  // of kBlkifIndirect
  std::uint8_t discard_flags = 0;       // of kBlkifDiscard
  std::uint16_t segment_count = 0;
  std::uint16_t handle = 0;
  std::uint64_t id = 0;
  std::uint64_t sector = 0;
  std::uint64_t discard_sectors = 0;                                   // of kBlkifDiscard
  std::array<BlkifSegment, kMaxDirectSegments> segments{};             // of all others
  std::array<std::uint32_t, kMaxIndirectPages> indirect_references{};  // of kBlkifIndirect
};

// A slot of the ring, already copied, as a request.
template <class Abi>
[[nodiscard]] BlkifRequest request_of(const typename Abi::Request& copy) {
  BlkifRequest request;
  request.operation = copy.operation;
  if (copy.operation == kBlkifIndirect) {
    typename Abi::IndirectRequest indirect;
    static_assert(sizeof(indirect) <= sizeof(copy));
    std::memcpy(&indirect, &copy, sizeof(indirect));
    request.indirect_operation = indirect.indirect_operation;
    request.segment_count = indirect.segment_count;
    request.handle = indirect.handle;
    request.id = indirect.id;
    request.sector = indirect.sector;
    request.indirect_references = indirect.references;
    return request;
  }
  if (copy.operation == kBlkifDiscard) {
    typename Abi::DiscardRequest discard;
    static_assert(sizeof(discard) <= sizeof(copy));
    std::memcpy(&discard, &copy, sizeof(discard));
    request.discard_flags = discard.flags;
    request.handle = discard.handle;
    request.id = discard.id;
    request.sector = discard.sector;
    request.discard_sectors = discard.sector_count;
    return request;
  }
  request.segment_count = copy.segment_count;
  request.handle = copy.handle;
  request.id = copy.id;
  request.sector = copy.sector;
  request.segments = copy.segments;
  return request;
}

// The start of the ring's first page. All four indices run freely and wrap at 2^32.
struct SharedRingHeader {
  std::uint32_t request_producer;   // guest writes
  std::uint32_t request_event;      // backend writes: ring the doorbell when this index is reached
  std::uint32_t response_producer;  // backend writes
  std::uint32_t response_event;     // guest writes
  std::array<std::uint32_t, 12> padding;
};
static_assert(sizeof(SharedRingHeader) == 64);

// A slot holds a request, and later a response (not necessarily to that request).
template <class Abi>
inline constexpr std::size_t kSlotBytes = sizeof(typename Abi::Request);

// Slots in a ring of this size: what fits behind the header, rounded down to a power of two.
template <class Abi>
[[nodiscard]] constexpr std::uint32_t ring_slots(std::size_t ring_bytes) {
  return static_cast<std::uint32_t>(
      std::bit_floor((ring_bytes - sizeof(SharedRingHeader)) / kSlotBytes<Abi>));
}
static_assert(ring_slots<BlkifX86_64>(4096) == 32 && ring_slots<BlkifX86_32>(4096) == 32);
static_assert(ring_slots<BlkifX86_64>(16 * 4096) == 512 &&
              ring_slots<BlkifX86_32>(16 * 4096) == 512);

}  // namespace iscsi_blkback
