#include "blkback/ring/request_buffers.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace iscsi_blkback {

RequestBuffers::~RequestBuffers() {
  if (arena_ != nullptr) {
    munmap(arena_, arena_bytes_);
  }
}

Result<void> RequestBuffers::allocate(std::vector<VbdRequest>& requests,
                                      std::uint32_t max_indirect_segments) {
  const bool has_indirect = max_indirect_segments > 0;
  const std::size_t buffer_bytes =
      std::max<std::size_t>(max_indirect_segments, kMaxDirectSegments) * kXenPageBytes;
  const std::size_t stride_bytes = buffer_bytes + (has_indirect ? sizeof(IndirectSegments) : 0);
  arena_bytes_ = requests.size() * stride_bytes;
  void* arena = mmap(nullptr, arena_bytes_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) {
    return tl::unexpected(system_error(fmt::format("{} bytes for buffers", arena_bytes_), errno));
  }
  (void)madvise(arena, arena_bytes_, MADV_DONTDUMP);    // it holds the guest's data
  (void)madvise(arena, arena_bytes_, MADV_NOHUGEPAGE);  // else a buffer's first bytes cost 2 MiB
  arena_ = static_cast<std::byte*>(arena);
  resident_.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].index = i;
    requests[i].buffer = arena_ + i * stride_bytes;
    if (has_indirect) {
      requests[i].indirect = reinterpret_cast<IndirectSegments*>(requests[i].buffer + buffer_bytes);
    }
  }
  return {};
}

void RequestBuffers::give_back(const VbdRequest& request) {
  Resident& resident = resident_[request.index];
  (void)madvise(request.buffer, resident.data_pages * kXenPageBytes, MADV_DONTNEED);
  room_.remove_resident(std::exchange(resident.data_pages, 0));
  if (std::exchange(resident.segments, false)) {
    (void)madvise(request.indirect, sizeof(IndirectSegments), MADV_DONTNEED);
    room_.remove_resident(kSegmentsPages);
  }
}

}  // namespace iscsi_blkback
