#include "blkback/ring/vbd.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

// So many requests of a queue at least are worth a turn.
constexpr std::uint32_t kLeastPerTurn = 16;

std::uint64_t total_microseconds(const LatencyHistogram& latency) {
  const auto total = std::chrono::duration_cast<std::chrono::microseconds>(latency.total());
  return static_cast<std::uint64_t>(total.count());
}

}  // namespace

Result<std::unique_ptr<Vbd>> Vbd::open(Reactor& reactor, RingTurn& turn, EventDispatcher& events,
                                       BlockDevice& device,
                                       const std::vector<RingParameters>& queues,
                                       const VbdOptions& options, Owner& owner) {
  ISCSI_BLKBACK_ASSERT(!queues.empty());
  std::unique_ptr<Vbd> vbd(new Vbd(owner, options.max_buffers_mb));
  const auto count = static_cast<std::uint32_t>(queues.size());
  for (const RingParameters& ring : queues) {
    VbdOptions own = options;
    own.max_requests_per_turn = std::max(options.max_requests_per_turn / count, kLeastPerTurn);
    own.room = &vbd->room_;
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

// By itself, not by statistics(): histograms are large, and this is asked for all the time.
Vbd3Statistics Vbd::vbd3_statistics() const {
  Vbd3Statistics sum;
  for (const auto& queue : queues_) {
    const VbdStatistics& own = queue->statistics();
    Vbd3Statistics of_queue;
    of_queue.waits_for_room = own.waits_for_room;
    of_queue.reads_submitted = own.reads;
    of_queue.reads_completed = own.read_latency.count();
    of_queue.read_sectors = own.read_sectors;
    of_queue.read_microseconds = total_microseconds(own.read_latency);
    of_queue.writes_submitted = own.writes;
    of_queue.writes_completed = own.write_latency.count();
    of_queue.written_sectors = own.written_sectors;
    of_queue.write_microseconds = total_microseconds(own.write_latency);
    of_queue.errors = own.errors;
    sum += of_queue;
  }
  return sum;
}

}  // namespace iscsi_blkback
