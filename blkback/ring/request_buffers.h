// RequestBuffers: the memory that the requests of a VbdQueue have for their data. Address space for
// the largest request of each slot; pages take memory when they are first used, and what has been used
// stays warm, up to a bound that all queues of the disk share (RequestRoom). Owned by VbdQueue. Reactor
// thread.
//
// While more than the bound is resident, all that comes free is given back: what exceeds it is of
// requests under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "blkback/ring/request_room.h"
#include "blkback/ring/vbd_request.h"

namespace iscsi_blkback {

class RequestBuffers {
 public:
  // room: outlives it.
  explicit RequestBuffers(RequestRoom& room) : room_(room) {}
  ~RequestBuffers();
  RequestBuffers(const RequestBuffers&) = delete;
  RequestBuffers& operator=(const RequestBuffers&) = delete;

  // Gives each request its buffer and, unless max_indirect_segments is 0, its IndirectSegments. Once.
  // The error: mmap()'s, for want of memory.
  [[nodiscard]] Result<void> allocate(std::vector<VbdRequest>& requests,
                                      std::uint32_t max_indirect_segments);
  // The request's data is about to be in its buffer.
  void use(const VbdRequest& request) {
    std::size_t& resident = resident_[request.index].data_pages;
    const std::size_t pages = (request.length_bytes() + kXenPageBytes - 1) / kXenPageBytes;
    if (pages > resident) {
      room_.add_resident(pages - resident);
      resident = pages;
    }
  }
  // What describes it, of an indirect one.
  void use_segments(const VbdRequest& request) {
    if (!std::exchange(resident_[request.index].segments, true)) {
      room_.add_resident(kSegmentsPages);
    }
  }
  // The request has been answered.
  void release(const VbdRequest& request) {
    if (room_.too_much_is_resident()) [[unlikely]] {
      give_back(request);
    }
  }

  static constexpr std::uint32_t kSegmentsPages = sizeof(IndirectSegments) / kXenPageBytes;

 private:
  // The most that has been in there since it was given back.
  struct Resident {
    std::size_t data_pages = 0;
    bool segments = false;
  };

  void give_back(const VbdRequest& request);

  RequestRoom& room_;
  std::byte* arena_ = nullptr;
  std::size_t arena_bytes_ = 0;
  std::vector<Resident> resident_;  // of each request
};

}  // namespace iscsi_blkback
