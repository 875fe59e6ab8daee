// RequestRoom: what the requests of a disk, in all of its queues, may have of the process's memory for
// their data. Half of it is for what is under way; a queue that finds no room there leaves its requests
// in its ring, and queues that wait have room again in the order in which they came. The other half is
// what may stay warm of buffers that have been used: so that the memory of the disk's buffers is never
// more than the whole (request_buffers.h). Owned by Vbd. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"
#include "blkback/xen/grant_table.h"

namespace iscsi_blkback {

class RequestRoom {
 public:
  // A queue. The first that waits is told when there is room, which nobody else gets before it leaves.
  class Waiter : private ListHook<Waiter> {
   public:
    // most_pages: of a request.
    Waiter(std::uint32_t most_pages, void (*on_room)(void* owner) noexcept, void* owner)
        : most_pages_(most_pages), on_room_(on_room), owner_(owner) {}

   private:
    friend class RequestRoom;
    friend class IntrusiveList<Waiter>;
    const std::uint32_t most_pages_;
    void (*const on_room_)(void* owner) noexcept;
    void* const owner_;
  };

  static constexpr std::uint32_t kDefaultMebibytes = 64;

  explicit RequestRoom(std::uint32_t mebibytes = kDefaultMebibytes)
      : most_pages_(mebibytes * kPagesPerMebibyte / 2) {}
  RequestRoom(const RequestRoom&) = delete;
  RequestRoom& operator=(const RequestRoom&) = delete;

  // Of requests under way, and as much of buffers that stay warm.
  [[nodiscard]] std::uint32_t most_pages() const { return most_pages_; }

  // For the largest request.
  [[nodiscard]] bool has_room(const Waiter& queue) {
    return fits(queue) && (waiting_.empty() || &waiting_.front() == &queue);
  }
  void take(std::uint32_t pages) { pages_ += pages; }
  void give_back(std::uint32_t pages) {
    pages_ -= pages;
    tell_first();
  }
  // The queue has found no room. served: it had some before, and is now the last that waits.
  void wait(Waiter& queue, bool served) {
    if (served) {
      leave(queue);
    }
    if (!queue.linked()) {
      waiting_.push_back(queue);
    }
  }
  // It does not want room now.
  void leave(Waiter& queue) {
    if (queue.linked()) {
      queue.unlink();
      tell_first();
    }
  }

  // Memory that buffers have taken, or given back, whether they are in use or not.
  void add_resident(std::size_t pages) { resident_pages_ += pages; }
  void remove_resident(std::size_t pages) { resident_pages_ -= pages; }
  [[nodiscard]] bool too_much_is_resident() const { return resident_pages_ > most_pages_; }
  [[nodiscard]] std::size_t resident_bytes() const { return resident_pages_ * kXenPageBytes; }

 private:
  static constexpr std::uint32_t kPagesPerMebibyte = (1U << 20) / kXenPageBytes;

  [[nodiscard]] bool fits(const Waiter& queue) const {
    return pages_ + queue.most_pages_ <= most_pages_;
  }
  void tell_first() {
    if (!waiting_.empty() && fits(waiting_.front())) {
      Waiter& first = waiting_.front();
      first.on_room_(first.owner_);
    }
  }

  const std::uint32_t most_pages_;
  std::uint32_t pages_ = 0;  // of requests under way
  std::size_t resident_pages_ = 0;
  IntrusiveList<Waiter> waiting_;
};

}  // namespace iscsi_blkback
