// RequestPool: the slots of a RequestQueue's requests. As many as the guest may have outstanding, and
// as many again, the spare ones, for hedges: all that the guest has outstanding may wait at one
// silent path. Owned by RequestQueue. Reactor thread; allocates when it is made.
#pragma once

#include <cstdint>
#include <deque>

#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "multipath/requests/request.h"

namespace iscsi_blkback {

class RequestPool {
 public:
  // queue: of all requests; on_delay_over gets the request.
  RequestPool(Reactor& reactor, std::uint32_t guests, Timer::Callback on_delay_over,
              RequestQueue* queue);
  ~RequestPool();  // all slots are free
  RequestPool(const RequestPool&) = delete;
  RequestPool& operator=(const RequestPool&) = delete;

  // nullptr: the guest has all of its slots.
  [[nodiscard]] Request* take() { return taken(free_.pop_front()); }
  [[nodiscard]] bool has_spare() const { return !spare_.empty(); }
  [[nodiscard]] Request& take_spare() { return *taken(spare_.pop_front()); }
  void give_back(Request& request);
  // The guest's request, which it has an answer for, keeps its slot as a spare one; the guest gets
  // another.
  void make_spare(Request& request);
  [[nodiscard]] bool has_free() const { return !free_.empty(); }
  // No slot is taken.
  [[nodiscard]] bool idle() const { return taken_ == 0; }

  template <class Visit>
  void for_each(Visit&& visit) {
    for (Request& request : slots_) {
      visit(request);
    }
  }

 private:
  [[nodiscard]] Request* taken(Request* request) {
    taken_ += request != nullptr ? 1 : 0;
    return request;
  }

  std::deque<Request> slots_;  // never grows
  IntrusiveList<Request> free_;
  IntrusiveList<Request> spare_;
  std::uint32_t taken_ = 0;
};

}  // namespace iscsi_blkback
