#include "tests/support/memory_disk.h"

#include <cstring>
#include <memory>

namespace iscsi_blkback {

struct MemoryDisk::Pending {
  Pending(Reactor& reactor, MemoryDisk& of) : disk(of), timer(reactor, on_due, this) {}
  MemoryDisk& disk;
  BlockRequest* request = nullptr;
  Timer timer;
};

MemoryDisk::MemoryDisk(Reactor& reactor, Geometry geometry)
    : reactor_(reactor),
      geometry_(geometry),
      contents_(geometry.sector_count * kSectorBytes),
      finish_all_(
          reactor,
          [](void* owner) noexcept {
            auto& disk = *static_cast<MemoryDisk*>(owner);
            while (BlockRequest* request = disk.ready_.pop_front()) {
              disk.finish(*request);
            }
          },
          this) {}

MemoryDisk::~MemoryDisk() {
  ISCSI_BLKBACK_ASSERT(in_flight_ == 0);
}

void MemoryDisk::set_geometry(const Geometry& geometry) {
  geometry_ = geometry;
  contents_.resize(geometry.sector_count * kSectorBytes);
}

void MemoryDisk::submit(BlockRequest& request) noexcept {
  ISCSI_BLKBACK_ASSERT(request.on_complete != nullptr);
  ISCSI_BLKBACK_ASSERT((request.operation == BlockOperation::flush) == (request.sector_count == 0));
  ISCSI_BLKBACK_ASSERT(request.sector <= geometry_.sector_count &&
                       request.sector_count <= geometry_.sector_count - request.sector);
  ISCSI_BLKBACK_ASSERT(request.length_bytes() % geometry_.logical_block_bytes == 0);
  ISCSI_BLKBACK_ASSERT(request.sector * kSectorBytes % geometry_.logical_block_bytes == 0);
  ISCSI_BLKBACK_ASSERT(request.operation != BlockOperation::write || !geometry_.read_only);
  ISCSI_BLKBACK_ASSERT(request.operation != BlockOperation::discard ||
                       (geometry_.discard_granularity_bytes != 0 && !geometry_.read_only));
  ++in_flight_;
  ++submitted_;
  if (!delay_) {
    ready_.push_back(request);
    finish_all_.schedule();
    return;
  }
  if (free_.empty()) {
    pool_.push_back(std::make_unique<Pending>(reactor_, *this));
    free_.push_back(pool_.back().get());
  }
  Pending& pending = *free_.back();
  free_.pop_back();
  pending.request = &request;
  pending.timer.start_after(delay_());
}

void MemoryDisk::on_due(void* owner) noexcept {
  Pending& pending = *static_cast<Pending*>(owner);
  MemoryDisk& disk = pending.disk;
  disk.free_.push_back(&pending);
  disk.finish(*pending.request);
}

void MemoryDisk::finish(BlockRequest& request) noexcept {
  std::byte* at = contents_.data() + request.sector * kSectorBytes;
  switch (request.operation) {
    case BlockOperation::read:
      std::memcpy(request.data, at, request.length_bytes());
      break;
    case BlockOperation::write:
      std::memcpy(at, request.data, request.length_bytes());
      break;
    case BlockOperation::flush:
      break;
    case BlockOperation::discard:
      std::memset(at, 0xdd, std::size_t{request.sector_count} * kSectorBytes);
      break;
  }
  --in_flight_;
  request.on_complete(request, IoStatus::ok);
}

}  // namespace iscsi_blkback
