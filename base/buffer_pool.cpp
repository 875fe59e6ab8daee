#include "base/buffer_pool.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <limits>

namespace iscsi_blkback {

Result<std::unique_ptr<BufferPool>> BufferPool::create(std::size_t buffer_bytes,
                                                       std::size_t capacity) {
  if (buffer_bytes == 0 || buffer_bytes % kPageBytes != 0 || capacity == 0 ||
      capacity > std::numeric_limits<std::size_t>::max() / buffer_bytes) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("a pool of {} buffers of {} bytes: the size must be a multiple of {}, "
                            "the number at least 1",
                            capacity, buffer_bytes, kPageBytes));
  }
  void* memory = mmap(nullptr, buffer_bytes * capacity, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    return tl::unexpected(system_error(
        fmt::format("cannot map {} buffers of {} bytes", capacity, buffer_bytes), errno));
  }
  (void)madvise(memory, buffer_bytes * capacity, MADV_DONTDUMP);  // it holds guests' data
  return std::unique_ptr<BufferPool>(
      new BufferPool(static_cast<std::byte*>(memory), buffer_bytes, capacity));
}

BufferPool::BufferPool(std::byte* memory, std::size_t buffer_bytes, std::size_t capacity)
    : memory_(memory), buffer_bytes_(buffer_bytes), capacity_(capacity) {
  free_.reserve(capacity);
  for (std::size_t i = capacity; i > 0; --i) {
    free_.push_back(memory + (i - 1) * buffer_bytes);
  }
}

BufferPool::~BufferPool() {
  ISCSI_BLKBACK_ASSERT(available() == capacity_);
  munmap(memory_, buffer_bytes_ * capacity_);
}

std::byte* BufferPool::acquire() {
  if (free_.empty()) {
    return nullptr;
  }
  std::byte* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void BufferPool::release(std::byte* buffer) {
  ISCSI_BLKBACK_ASSERT(buffer >= memory_ && buffer < memory_ + buffer_bytes_ * capacity_);
  ISCSI_BLKBACK_ASSERT(static_cast<std::size_t>(buffer - memory_) % buffer_bytes_ == 0);
  ISCSI_BLKBACK_ASSERT(available() < capacity_);
  free_.push_back(buffer);
}

}  // namespace iscsi_blkback
