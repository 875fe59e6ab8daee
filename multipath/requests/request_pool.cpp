#include "multipath/requests/request_pool.h"

namespace iscsi_blkback {

RequestPool::RequestPool(Reactor& reactor, std::uint32_t guests, Timer::Callback on_delay_over,
                         RequestQueue* queue) {
  for (std::uint32_t slot = 0; slot < guests; ++slot) {
    free_.push_back(slots_.emplace_back(reactor, on_delay_over, queue, true));
  }
  for (std::uint32_t slot = 0; slot < guests; ++slot) {
    spare_.push_back(slots_.emplace_back(reactor, on_delay_over, queue, false));
  }
}

RequestPool::~RequestPool() {
  while (free_.pop_front() != nullptr || spare_.pop_front() != nullptr) {
  }
}

void RequestPool::give_back(Request& request) {
  request.place = Request::Place::free;
  request.block = nullptr;
  (request.is_guests ? free_ : spare_).push_front(request);  // the slot that the cache knows best
  --taken_;
}

void RequestPool::make_spare(Request& request) {
  Request& spare = *spare_.pop_front();  // the hedge's, at least
  request.is_guests = false;
  spare.is_guests = true;
  free_.push_front(spare);
}

}  // namespace iscsi_blkback
