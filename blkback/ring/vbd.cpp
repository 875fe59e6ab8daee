#include "blkback/ring/vbd.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

// So many requests of a queue at least are worth a turn.
constexpr std::uint32_t kLeastPerTurn = 16;

}  // namespace

Result<std::unique_ptr<Vbd>> Vbd::open(Reactor& reactor, RingTurn& turn,
                                       EventDispatcher& events, BlockDevice& device,
                                       const std::vector<RingParameters>& queues,
                                       const VbdOptions& options, Owner& owner) {
  ISCSI_BLKBACK_ASSERT(!queues.empty());
  std::unique_ptr<Vbd> vbd(new Vbd(owner));
  const auto count = static_cast<std::uint32_t>(queues.size());
  for (const RingParameters& ring : queues) {
    VbdOptions own = options;
    own.max_requests_per_turn = std::max(options.max_requests_per_turn / count, kLeastPerTurn);
    if (count > 1) {
      own.name = fmt::format("{}, queue {}", options.name, vbd->queues_.size());
    }
    auto queue = VbdQueue::open(reactor, turn, events, device, ring, std::move(own), *vbd);
    if (!queue) {
      return tl::unexpected(queue.error());
    }
    vbd->queues_.push_back(std::move(*queue));
  }
  vbd->open_ = count;
  return vbd;
}

void Vbd::close(void (*on_closed)(void* owner) noexcept, void* owner) {
  on_closed_ = on_closed;
  on_closed_owner_ = owner;
  for (const auto& queue : queues_) {
    queue->close([](void* self) noexcept { static_cast<Vbd*>(self)->on_queue_closed(); }, this);
  }
}

void Vbd::on_queue_closed() noexcept {
  if (--open_ == 0) {
    on_closed_(on_closed_owner_);  // may delete the Vbd
  }
}

void Vbd::abandon() {
  for (const auto& queue : queues_) {
    queue->abandon();
  }
}

void Vbd::set_read_only(bool read_only) {
  for (const auto& queue : queues_) {
    queue->set_read_only(read_only);
  }
}

void Vbd::on_queue_broken(VbdQueue& /*queue*/, const Error& error) noexcept {
  if (!std::exchange(broken_, true)) {
    owner_.on_vbd_broken(*this, error);
  }
}

std::uint32_t Vbd::in_flight() const {
  std::uint32_t sum = 0;
  for (const auto& queue : queues_) {
    sum += queue->in_flight();
  }
  return sum;
}

std::uint32_t Vbd::held_flushes() const {
  std::uint32_t sum = 0;
  for (const auto& queue : queues_) {
    sum += queue->held_flushes();
  }
  return sum;
}

VbdStatistics Vbd::statistics() const {
  VbdStatistics sum;
  for (const auto& queue : queues_) {
    sum.merge(queue->statistics());
  }
  return sum;
}

}  // namespace iscsi_blkback
