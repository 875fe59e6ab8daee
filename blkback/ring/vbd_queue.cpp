#include "blkback/ring/vbd_queue.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

namespace iscsi_blkback {
namespace {

// Between the tries of a flush that has failed: doubling. The device has a budget of its own for
// what passes quickly.
constexpr Duration kFirstFlushRetry = std::chrono::milliseconds(100);
constexpr Duration kLongestFlushRetry = std::chrono::seconds(2);

std::int16_t response_status(IoStatus status) {
  switch (status) {
    case IoStatus::ok:
      return kBlkifOkay;
    case IoStatus::not_supported:
      return kBlkifNotSupported;
    case IoStatus::medium_error:
    case IoStatus::target_error:
    case IoStatus::out_of_range:
    case IoStatus::write_protected:
    case IoStatus::no_space:
    case IoStatus::reservation_conflict:
    case IoStatus::no_path:
    case IoStatus::aborted:
      return kBlkifError;
  }
  return kBlkifError;
}

}  // namespace

Result<std::unique_ptr<VbdQueue>> VbdQueue::open(Reactor& reactor, GrantTable& grants,
                                                 EventDispatcher& events, BlockDevice& device,
                                                 const RingParameters& ring, VbdOptions options,
                                                 Owner& owner) {
  std::unique_ptr<VbdQueue> queue(
      new VbdQueue(reactor, grants, events, device, std::move(options), owner));
  if (Result<void> connected = queue->connect(ring); !connected) {
    return tl::unexpected(connected.error());
  }
  return queue;
}

VbdQueue::VbdQueue(Reactor& reactor, GrantTable& grants, EventDispatcher& events,
                   BlockDevice& device, VbdOptions options, Owner& owner)
    : reactor_(reactor),
      grants_(grants),
      events_(events),
      device_(device),
      options_(std::move(options)),
      owner_(owner),
      consume_(
          reactor, [](void* self) noexcept { static_cast<VbdQueue*>(self)->consume(); }, this),
      answer_(
          reactor, [](void* self) noexcept { static_cast<VbdQueue*>(self)->answer_finished(); },
          this),
      report_broken_(
          reactor,
          [](void* self) noexcept {
            VbdQueue& queue = *static_cast<VbdQueue*>(self);
            queue.owner_.on_queue_broken(queue, queue.broken_because_);
          },
          this),
      closed_(
          reactor,
          [](void* self) noexcept {
            VbdQueue& queue = *static_cast<VbdQueue*>(self);
            queue.disconnect();
            queue.state_ = State::closed;
            queue.on_closed_(queue.on_closed_owner_);  // may delete the VbdQueue
          },
          this),
      flush_retry_(
          reactor, [](void* self) noexcept { static_cast<VbdQueue*>(self)->retry_flushes(); },
          this),
      log_(options_.log != nullptr ? *options_.log : own_log_) {}

void VbdStatistics::merge(const VbdStatistics& other) {
  reads += other.reads;
  writes += other.writes;
  flushes += other.flushes;
  read_sectors += other.read_sectors;
  written_sectors += other.written_sectors;
  refused += other.refused;
  errors += other.errors;
  read_latency.merge(other.read_latency);
  write_latency.merge(other.write_latency);
  flush_latency.merge(other.flush_latency);
  flush_retries += other.flush_retries;
}

VbdQueue::~VbdQueue() {
  ISCSI_BLKBACK_ASSERT(in_flight_ == 0);
  disconnect();
  if (arena_ != nullptr) {
    munmap(arena_, arena_bytes_);
  }
}

Result<void> VbdQueue::connect(const RingParameters& ring) {
  const std::size_t pages = ring.ring_references.size();
  if (!std::has_single_bit(pages) || pages > kMaxRingPages) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("a ring of {} pages is not possible (1, 2, 4, 8 or 16)", pages));
  }
  domain_ = ring.domain;
  Result<std::unique_ptr<MappedGrants>> mapped = grants_.map(ring.domain, ring.ring_references);
  if (!mapped) {
    return tl::unexpected(mapped.error());
  }
  mapped_ = std::move(*mapped);
  std::uint32_t slot_count = 0;
  switch (ring.abi) {
    case BlkifAbi::native:
    case BlkifAbi::x86_64:
      slot_count =
          ring_.emplace<BackRing<BlkifX86_64>>(mapped_->bytes(), ring.start_index).slot_count();
      break;
    case BlkifAbi::x86_32:
      slot_count =
          ring_.emplace<BackRing<BlkifX86_32>>(mapped_->bytes(), ring.start_index).slot_count();
      break;
  }
  if (Result<void> allocated = allocate(slot_count); !allocated) {
    return allocated;
  }
  Result<LocalPort> port = events_.bind(ring.domain, ring.event_port, *this);
  if (!port) {
    return tl::unexpected(port.error());
  }
  port_ = *port;
  bound_ = true;
  return {};
}

Result<void> VbdQueue::allocate(std::uint32_t slot_count) {
  // Pages of the arena take memory when they are first used, and buffers are reused warm first: a
  // guest that keeps its queue short costs little.
  arena_bytes_ = slot_count * kBufferBytes;
  void* arena = mmap(nullptr, arena_bytes_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) {
    return tl::unexpected(system_error(
        fmt::format("no {} bytes for the buffers of {}", arena_bytes_, options_.name), errno));
  }
  (void)madvise(arena, arena_bytes_, MADV_DONTDUMP);  // it holds the guest's data
  arena_ = static_cast<std::byte*>(arena);
  slots_ = std::vector<Slot>(slot_count);
  free_slots_.reserve(slot_count);
  copies_.reserve(slot_count * kMaxDirectSegments);
  for (std::size_t i = slot_count; i-- > 0;) {
    slots_[i].buffer = arena_ + i * kBufferBytes;
    slots_[i].owner = this;
    slots_[i].on_complete = on_request_complete;
    free_slots_.push_back(&slots_[i]);
  }
  return {};
}

// --- requests: ring -> device ------------------------------------------------------------------

void VbdQueue::on_event() noexcept {
  masked_ = true;
  if (state_ == State::serving) {
    consume_.schedule();
  }
}

void VbdQueue::on_events_lost(const Error& error) noexcept {
  break_ring(error);
}

void VbdQueue::consume() noexcept {
  if (auto* ring = std::get_if<BackRing<BlkifX86_64>>(&ring_)) {
    consume_from(*ring);
  } else if (auto* ring32 = std::get_if<BackRing<BlkifX86_32>>(&ring_)) {
    consume_from(*ring32);
  }
}

template <class Abi>
void VbdQueue::consume_from(BackRing<Abi>& ring) noexcept {
  const RequestLimits limits = RequestLimits::of(device_.geometry(), options_.read_only);
  const TimePoint now = reactor_.now();
  bool ring_is_empty = false;
  // Every look at the ring costs, not only every request: a guest that flips its producer index
  // back and forth must not keep the loop going.
  for (std::uint32_t budget = options_.max_requests_per_turn; budget > 0; --budget) {
    std::uint32_t waiting = ring.poll();
    if (ring.broken()) {
      break_ring(Error{ErrorCode::protocol,
                       fmt::format("the guest's request index {} is not within {} requests after "
                                   "response {}: its ring is not served any more",
                                   ring.known_producer(), ring.slot_count(), ring.produced())});
      break;
    }
    if (waiting == 0) {
      if (ring.final_check()) {
        continue;
      }
      ring_is_empty = true;
      break;
    }
    for (; waiting > 1 && budget > 1; --waiting, --budget) {
      accept(ring.consume(), limits, now);
    }
    accept(ring.consume(), limits, now);
  }
  submit_accepted();
  if (state_ != State::serving) {
    return;
  }
  if (!ring_is_empty) {
    consume_.schedule();  // the others first; the rest in the next turn
  } else if (std::exchange(masked_, false)) {
    events_.unmask(port_);
  }
}

void VbdQueue::accept(const BlkifRequest& request, const RequestLimits& limits,
                      TimePoint now) noexcept {
  // There are as many slots as requests in a ring, and a request frees its place in the ring only
  // when it is answered.
  ISCSI_BLKBACK_ASSERT(!free_slots_.empty());
  Slot& slot = *free_slots_.back();
  free_slots_.pop_back();
  ++in_flight_;
  slot.id = request.id;
  slot.ring_operation = request.operation;
  slot.response = kBlkifOkay;
  slot.submitted = false;
  slot.held = false;
  slot.unanswered = false;
  slot.accepted_at = now;
  const Refusal refusal = parse_request(request, limits, slot.parsed);
  if (refusal != Refusal::none) {
    ++statistics_.refused;
    slot.response = response_status(refusal);
    log_limited(log_.refusals, now, LogLevel::warning, "vbd",
                "{}: request refused: {} (operation {}, sector {}, {} segments)", options_.name,
                to_string(refusal), request.operation, request.sector, request.segment_count);
    finish(slot);
    return;
  }
  slot.operation = slot.parsed.operation;
  slot.sector = slot.parsed.sector;
  slot.sector_count = slot.parsed.sector_count;
  slot.data = slot.operation == BlockOperation::flush ? nullptr : slot.buffer;
  accepted_.push_back(slot);
  if (slot.operation == BlockOperation::write) {
    add_copies(slot, GrantCopyDirection::from_guest);
  }
}

void VbdQueue::submit_accepted() noexcept {
  copy_and_check(accepted_, BlockOperation::write);
  while (Slot* slot = accepted_.pop_front()) {
    if (slot->response != kBlkifOkay) {
      finish(*slot);
      continue;
    }
    switch (slot->operation) {
      case BlockOperation::read:
        ++statistics_.reads;
        statistics_.read_sectors += slot->sector_count;
        break;
      case BlockOperation::write:
        ++statistics_.writes;
        statistics_.written_sectors += slot->sector_count;
        break;
      case BlockOperation::flush:
        ++statistics_.flushes;
        break;
    }
    slot->submitted = true;
    device_.submit(*slot);
  }
}

void VbdQueue::break_ring(Error error) noexcept {
  if (state_ != State::serving) {
    return;
  }
  state_ = State::broken;
  log_limited(log_.breaks, reactor_.now(), LogLevel::error, "vbd", "{}: {}", options_.name,
              error.message);
  broken_because_ = std::move(error);
  consume_.cancel();
  report_broken_.schedule();
}

// --- answers: device -> ring -------------------------------------------------------------------

void VbdQueue::on_request_complete(BlockRequest& request, IoStatus status) noexcept {
  Slot& slot = static_cast<Slot&>(request);
  VbdQueue& queue = *static_cast<VbdQueue*>(request.owner);
  if (slot.operation == BlockOperation::flush) {
    if (status == IoStatus::ok) {
      queue.on_flush_succeeded(slot);
    } else {
      queue.on_flush_failed(slot, status);
      return;
    }
  }
  slot.response = response_status(status);
  if (status != IoStatus::ok) {
    log_limited(queue.log_.errors, queue.reactor_.now(), LogLevel::warning, "vbd",
                "{}: {} of {} sectors at sector {} failed: {}", queue.options_.name,
                to_string(slot.operation), slot.sector_count, slot.sector, to_string(status));
  }
  queue.finish(slot);
}

void VbdQueue::finish(Slot& slot) noexcept {
  finished_.push_back(slot);
  answer_.schedule();
}

void VbdQueue::on_flush_failed(Slot& slot, IoStatus status) noexcept {
  const bool first = !std::exchange(slot.held, true) && held_flushes_++ == 0;
  failed_flushes_.push_back(slot);
  if (state_ == State::closing) {
    drop_held_flushes();
    return;
  }
  if (status == IoStatus::not_supported) {
    break_ring(
        {ErrorCode::unsupported,
         "the LUN has a volatile write cache, or does not tell that it has none, and refuses "
         "SYNCHRONIZE CACHE: nothing that the guest flushes would be safe, so its disk is not "
         "served any more; switch the LUN's write cache off, then restart the guest"});
    return;
  }
  if (status == IoStatus::write_protected) {
    break_ring(
        {ErrorCode::io,
         "the LUN is write-protected now and refuses SYNCHRONIZE CACHE: what the guest has "
         "written may be in the LUN's volatile write cache only, so its disk is not served any "
         "more; end the write protection at the array, then restart the guest"});
    return;
  }
  if (status == IoStatus::medium_error) {
    break_ring(
        {ErrorCode::io,
         "the target has lost data that it had acknowledged: its cache could not be written. "
         "The guest's disk is not served any more; check the array, then restart the guest, "
         "whose file systems have to be checked"});
    return;
  }
  if (first) {
    flush_retry_delay_ = kFirstFlushRetry;
    log_limited(log_.errors, reactor_.now(), LogLevel::error, "vbd",
                "{}: a flush failed: {}; it is tried again until it succeeds, for the guest would "
                "take an error for success",
                options_.name, to_string(status));
  }
  if (!flush_retry_.armed()) {
    flush_retry_.start_after(flush_retry_delay_);
    flush_retry_delay_ = std::min(2 * flush_retry_delay_, kLongestFlushRetry);
  }
}

void VbdQueue::on_flush_succeeded(Slot& slot) noexcept {
  if (std::exchange(slot.held, false) && --held_flushes_ == 0) {
    log_limited(log_.errors, reactor_.now(), LogLevel::info, "vbd", "{}: flushes succeed again",
                options_.name);
  }
}

void VbdQueue::retry_flushes() noexcept {
  SlotList again;
  again.take_all(failed_flushes_);
  while (Slot* slot = again.pop_front()) {
    ++statistics_.flush_retries;
    device_.submit(*slot);
  }
}

// Their ring goes: the guest finds them unanswered, which is what they are.
void VbdQueue::drop_held_flushes() noexcept {
  flush_retry_.stop();
  while (Slot* slot = failed_flushes_.pop_front()) {
    slot->held = false;
    --held_flushes_;
    slot->unanswered = true;
    finish(*slot);
  }
}

void VbdQueue::answer_finished() noexcept {
  if (mapped_ != nullptr) {
    finished_.for_each([this](Slot& slot) {
      if (slot.response == kBlkifOkay && slot.ring_operation == kBlkifRead) {
        add_copies(slot, GrantCopyDirection::to_guest);
      }
    });
    copy_and_check(finished_, BlockOperation::read);
  }
  if (auto* ring = std::get_if<BackRing<BlkifX86_64>>(&ring_)) {
    publish(*ring);
  } else if (auto* ring32 = std::get_if<BackRing<BlkifX86_32>>(&ring_)) {
    publish(*ring32);
  }
  while (Slot* slot = finished_.pop_front()) {
    free_slots_.push_back(slot);
    --in_flight_;
  }
  finish_close_when_idle();
}

// The only place where the guest is told anything.
template <class Abi>
void VbdQueue::publish(BackRing<Abi>& ring) noexcept {
  const TimePoint now = reactor_.now();
  finished_.for_each([&](Slot& slot) {
    if (slot.unanswered) {
      return;
    }
    count_answer(slot, now);
    ring.put_response(slot.id, slot.ring_operation, slot.response);
  });
  if (ring.publish()) {
    events_.notify(port_);
  }
}

void VbdQueue::count_answer(const Slot& slot, TimePoint now) {
  if (slot.response != kBlkifOkay) {
    ++statistics_.errors;
  }
  if (!slot.submitted) {
    return;
  }
  switch (slot.operation) {
    case BlockOperation::read:
      statistics_.read_latency.record(now - slot.accepted_at);
      break;
    case BlockOperation::write:
      statistics_.write_latency.record(now - slot.accepted_at);
      break;
    case BlockOperation::flush:
      statistics_.flush_latency.record(now - slot.accepted_at);
      break;
  }
}

// --- grant copies ------------------------------------------------------------------------------

void VbdQueue::add_copies(Slot& slot, GrantCopyDirection direction) {
  slot.first_copy = static_cast<std::uint32_t>(copies_.size());
  std::byte* local = slot.buffer;
  for (std::size_t i = 0; i < slot.parsed.segment_count; ++i) {
    const RequestSegment& segment = slot.parsed.segments[i];
    GrantCopySegment copy;
    copy.direction = direction;
    copy.domain = domain_;
    copy.reference = segment.reference;
    copy.offset_bytes = segment.offset_bytes;
    copy.length_bytes = segment.length_bytes;
    copy.local = local;
    copies_.push_back(copy);
    local += segment.length_bytes;
  }
}

void VbdQueue::copy_and_check(SlotList& slots, BlockOperation operation) noexcept {
  if (copies_.empty()) {
    return;
  }
  const Result<void> copied = grants_.copy(copies_);
  if (!copied) {
    log_limited(log_.errors, reactor_.now(), LogLevel::error, "vbd", "{}: {}", options_.name,
                copied.error().message);
  }
  slots.for_each([&](Slot& slot) {
    if (slot.operation != operation || slot.response != kBlkifOkay) {
      return;
    }
    bool ok = copied.has_value();
    for (std::size_t i = 0; i < slot.parsed.segment_count; ++i) {
      ok = ok && copies_[slot.first_copy + i].ok;
    }
    if (!ok) {
      slot.response = kBlkifError;
      log_limited(log_.errors, reactor_.now(), LogLevel::warning, "vbd",
                  "{}: the guest's pages of a {} at sector {} could not be copied", options_.name,
                  to_string(slot.operation), slot.sector);
    }
  });
  copies_.clear();
}

// --- end ---------------------------------------------------------------------------------------

void VbdQueue::close(void (*on_closed)(void* owner) noexcept, void* owner) {
  ISCSI_BLKBACK_ASSERT(state_ == State::serving || state_ == State::broken);
  state_ = State::closing;
  consume_.cancel();
  report_broken_.cancel();
  on_closed_ = on_closed;
  on_closed_owner_ = owner;
  drop_held_flushes();
  finish_close_when_idle();
}

void VbdQueue::abandon() {
  ISCSI_BLKBACK_ASSERT(state_ == State::closing || state_ == State::closed);
  disconnect();
}

void VbdQueue::finish_close_when_idle() {
  if (state_ == State::closing && in_flight_ == 0) {
    closed_.schedule();
  }
}

void VbdQueue::disconnect() {
  if (std::exchange(bound_, false)) {
    events_.unbind(port_);
  }
  ring_ = std::monostate{};
  mapped_.reset();
}

}  // namespace iscsi_blkback
