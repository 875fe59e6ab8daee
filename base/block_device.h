// BlockDevice: what everything below the guest's ring looks like (MultipathDevice, a memory disk, a
// fault decorator). All calls on one reactor thread.
//
// The contract, both ways:
//  - The caller checks operation, sector range and alignment against geometry() before submit; the
//    device may assume them. The caller keeps request and buffer alive and untouched until
//    complete.
//  - The device completes every submitted request exactly once, from the reactor, never from inside
//    submit, and touches neither request nor buffer afterwards. Success means that every byte was
//    transferred and that the target said so.
//  - A discard says that nobody wants what the sectors hold: until they are written they read as
//    anything. Only where geometry() has them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"

namespace iscsi_blkback {

// Sectors are always units of 512 bytes, as in blkif.h; logical blocks belong to the LUN.
inline constexpr std::uint32_t kSectorBytes = 512;

enum class BlockOperation : std::uint8_t { read, write, flush, discard };

// What a guest can be told of a request; blkif has OKAY, ERROR and EOPNOTSUPP only, the rest is for
// logs and counters.
enum class IoStatus : std::uint8_t {
  ok,
  medium_error,  // the target could not read or write the medium
  target_error,  // the target refused or failed the command for another reason
  not_supported,
  out_of_range,
  write_protected,
  no_space,  // a thinly provisioned LUN is full
  reservation_conflict,
  no_path,  // no path came back within no_path_retry
  aborted,  // the device is being closed
};

[[nodiscard]] const char* to_string(IoStatus status);
[[nodiscard]] const char* to_string(BlockOperation operation);

struct BlockRequest : ListHook<BlockRequest> {
  BlockOperation operation = BlockOperation::read;
  std::uint64_t sector = 0;
  std::uint32_t sector_count = 0;  // 0 for flush only
  std::byte* data = nullptr;       // length_bytes(); null for flush and discard
  void (*on_complete)(BlockRequest& request, IoStatus status) noexcept = nullptr;
  void* owner = nullptr;  // for on_complete

  // What is transferred.
  [[nodiscard]] std::size_t length_bytes() const {
    return operation == BlockOperation::discard ? 0 : std::size_t{sector_count} * kSectorBytes;
  }
};

struct Geometry {
  std::uint64_t sector_count = 0;           // capacity
  std::uint32_t logical_block_bytes = 512;  // a power of two, 512..4096
  std::uint32_t physical_block_bytes = 512;
  std::uint32_t max_transfer_sectors = 0;  // 0: no limit of the device's
  // Discards: in units of so many bytes, of which the first whole one begins there; 0: there are none.
  std::uint32_t discard_granularity_bytes = 0;
  std::uint32_t discard_alignment_bytes = 0;
  bool read_only = false;

  bool operator==(const Geometry&) const = default;
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  [[nodiscard]] virtual const Geometry& geometry() const = 0;
  virtual void submit(BlockRequest& request) noexcept = 0;
};

}  // namespace iscsi_blkback
