// RequestBuffers: the memory that the requests of a VbdQueue have for their data. Address space for
// the largest request of each slot; pages take memory when they are first used, and what has been used
// stays warm, up to a bound. Owned by VbdQueue. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "blkback/ring/vbd_request.h"

namespace iscsi_blkback {

class RequestBuffers {
 public:
  // Where more than that has been used, what comes free is given back.
  static constexpr std::size_t kMaxResidentBytes = std::size_t{32} << 20;

  RequestBuffers() = default;
  ~RequestBuffers();
  RequestBuffers(const RequestBuffers&) = delete;
  RequestBuffers& operator=(const RequestBuffers&) = delete;

  // Gives each request its buffer and, unless max_indirect_segments is 0, its IndirectSegments. Once.
  // The error: mmap()'s, for want of memory.
  [[nodiscard]] Result<void> allocate(std::vector<VbdRequest>& requests,
                                      std::uint32_t max_indirect_segments);
  // The request's data is about to be in its buffer.
  void use(const VbdRequest& request) {
    std::size_t& resident = resident_[request.index];
    if (request.length_bytes() > resident) {
      resident_bytes_ += request.length_bytes() - resident;
      resident = request.length_bytes();
    }
  }
  // The request has been answered.
  void release(const VbdRequest& request) {
    if (resident_bytes_ > kMaxResidentBytes) [[unlikely]] {
      give_back(request);
    }
  }
  [[nodiscard]] std::size_t resident_bytes() const { return resident_bytes_; }

 private:
  void give_back(const VbdRequest& request);

  std::byte* arena_ = nullptr;
  std::size_t arena_bytes_ = 0;
  std::vector<std::size_t> resident_;  // the most that a buffer has held since it was given back
  std::size_t resident_bytes_ = 0;     // their sum
};

}  // namespace iscsi_blkback
