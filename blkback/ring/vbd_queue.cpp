#include "blkback/ring/vbd_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace iscsi_blkback {
namespace {

// A frontend takes EOPNOTSUPP for the end of the feature, and of a flush with data for success.
std::int16_t response_status(BlockOperation operation, IoStatus status) {
  switch (status) {
    case IoStatus::ok:
      return kBlkifOkay;
    case IoStatus::not_supported:
      return operation == BlockOperation::discard ? kBlkifNotSupported : kBlkifError;
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

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// Its data, and of an indirect one what describes it.
std::uint32_t most_pages(const VbdOptions& options) {
  return options.max_indirect_segments == 0
             ? kMaxDirectSegments
             : std::max<std::uint32_t>(
                   options.max_indirect_segments + RequestBuffers::kSegmentsPages,
                   kMaxDirectSegments);
}

}  // namespace

Result<std::unique_ptr<VbdQueue>> VbdQueue::open(Reactor& reactor, RingTurn& turn,
                                                 EventDispatcher& events, BlockDevice& device,
                                                 const RingParameters& ring, VbdOptions options,
                                                 Owner& owner) {
  std::unique_ptr<VbdQueue> queue(
      new VbdQueue(reactor, turn, events, device, std::move(options), owner));
  if (Result<void> connected = queue->connect(ring); !connected) {
    return tl::unexpected(connected.error());
  }
  return queue;
}

VbdQueue::VbdQueue(Reactor& reactor, RingTurn& turn, EventDispatcher& events, BlockDevice& device,
                   VbdOptions options, Owner& owner)
    : reactor_(reactor),
      turn_(turn),
      device_(device),
      options_(std::move(options)),
      owner_(owner),
      bell_(reactor, events),
      room_(options_.room != nullptr ? *options_.room : own_room_),
      waiter_(
          most_pages(options_),
          [](void* self) noexcept { static_cast<VbdQueue*>(self)->schedule_consume(); }, this),
      buffers_(room_),
      part_(turn, *this),
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
      log_(options_.log != nullptr ? *options_.log : own_log_),
      flush_retries_(reactor, device, options_.name, log_.errors, statistics_.flush_retries) {}

void VbdStatistics::merge(const VbdStatistics& other) {
  reads += other.reads;
  writes += other.writes;
  flushes += other.flushes;
  discards += other.discards;
  read_sectors += other.read_sectors;
  written_sectors += other.written_sectors;
  discarded_sectors += other.discarded_sectors;
  refused += other.refused;
  errors += other.errors;
  read_latency.merge(other.read_latency);
  write_latency.merge(other.write_latency);
  flush_latency.merge(other.flush_latency);
  flush_retries += other.flush_retries;
  waits_for_room += other.waits_for_room;
}

VbdQueue::~VbdQueue() {
  ISCSI_BLKBACK_ASSERT(in_flight_ == 0);
  room_.leave(waiter_);
  disconnect();
}

Result<void> VbdQueue::connect(const RingParameters& ring) {
  const std::size_t pages = ring.ring_references.size();
  if (!std::has_single_bit(pages) || pages > kMaxRingPages) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("a ring of {} pages is not possible (1, 2, 4, 8 or 16)", pages));
  }
  domain_ = ring.domain;
  Result<std::unique_ptr<MappedGrants>> mapped =
      turn_.grants().map(ring.domain, ring.ring_references);
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
  return bell_.bind(ring.domain, ring.event_port, *this);
}

Result<void> VbdQueue::allocate(std::uint32_t slot_count) {
  slots_ = std::vector<Slot>(slot_count);
  if (auto allocated = buffers_.allocate(slots_, options_.max_indirect_segments); !allocated) {
    return allocated;
  }
  free_slots_.reserve(slot_count);
  const std::size_t most_segments = std::size_t{slot_count} * most_pages(options_);
  part_.make_room(slot_count + std::min<std::size_t>(most_segments, room_.most_pages()));
  for (std::size_t i = slot_count; i-- > 0;) {
    slots_[i].owner = this;
    slots_[i].on_complete = on_request_complete;
    free_slots_.push_back(&slots_[i]);
  }
  return {};
}

// --- requests: ring -> device ------------------------------------------------------------------

void VbdQueue::on_event() noexcept {
  bell_.rang();
  schedule_consume();
}

void VbdQueue::on_events_lost(const Error& error) noexcept {
  break_ring(error);
}

void VbdQueue::schedule_consume() {
  if (state_ == State::serving) {
    consume_due_ = true;
    part_.schedule();
  }
}

void VbdQueue::begin_turn() noexcept {
  if (std::exchange(consume_due_, false)) {
    consume();
  }
  gather_finished();
}

// Answers first: the guest runs on while we send.
void VbdQueue::end_turn() noexcept {
  if (!leaving_.empty()) {
    answer_leaving();
  }
  if (!accepted_.empty() || !indirect_.empty()) {
    submit_arrived();
  }
}

bool VbdQueue::has_work() noexcept {
  const bool news =
      state_ == State::serving && std::visit(Overloaded{
                                                 [](std::monostate&) { return false; },
                                                 [](auto& ring) { return ring.has_news(); },
                                             },
                                             ring_);
  if (news) {
    schedule_consume();
  }
  return news;
}

// What came in while nobody had to ring is seen now, by final_check(); from then on the doorbell is heard.
bool VbdQueue::ask_to_ring() noexcept {
  if (state_ != State::serving) {
    return false;
  }
  const bool news = std::visit(Overloaded{
                                   [](std::monostate&) { return false; },
                                   [](auto& ring) { return ring.final_check(); },
                               },
                               ring_);
  if (news) {
    schedule_consume();
  } else {
    bell_.unmask();
  }
  return news;
}

RequestLimits VbdQueue::limits() const {
  RequestLimits limits = RequestLimits::of(device_.geometry(), options_.read_only);
  limits.max_indirect_segments = options_.max_indirect_segments;
  limits.discards = limits.discards && options_.discards;
  return limits;
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
  const RequestLimits limits = this->limits();
  const TimePoint now = reactor_.turn_time();
  bool ring_is_empty = false;
  bool wants_room = false;
  const std::uint32_t before = in_flight_;
  for (std::uint32_t budget = options_.max_requests_per_turn; budget > 0;) {
    if (!may_take()) {
      wants_room = barrier_ == nullptr;
      break;
    }
    std::uint32_t waiting = ring.poll();
    if (ring.broken()) {
      break_ring(Error{ErrorCode::protocol,
                       fmt::format("the guest's request index {} is not within {} requests after "
                                   "response {}: its ring is not served any more",
                                   ring.known_producer(), ring.slot_count(), ring.produced())});
      break;
    }
    if (waiting == 0) {
      ring_is_empty = true;
      break;
    }
    bell_.brought_something();
    for (; waiting > 0 && budget > 0 && may_take(); --waiting, --budget) {
      accept(ring.consume(), limits, now);
    }
  }
  if (wants_room) {
    ++statistics_.waits_for_room;
    room_.wait(waiter_, in_flight_ != before);
    return;
  }
  room_.leave(waiter_);
  if (state_ != State::serving || barrier_ != nullptr) {
    return;
  }
  if (!ring_is_empty) {
    schedule_consume();  // the rest in the next turn
  } else {
    reactor_.look_at(*this);
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
  slot.begin(request, now);
  if (!slot.is_indirect()) {
    parse(slot, {}, limits, now);
    return;
  }
  if (const Refusal refusal = check_indirect(request, limits); refusal != Refusal::none) {
    refuse(slot, refusal, now);
    return;
  }
  slot.pages_held = request.segment_count + RequestBuffers::kSegmentsPages;
  room_.take(slot.pages_held);
  buffers_.use_segments(slot);
  if (request.indirect_operation == kBlkifWriteBarrier) {
    barrier_ = &slot;
  }
  indirect_.push_back(slot);
  add_descriptor_copy(slot);
}

void VbdQueue::refuse(Slot& slot, Refusal refusal, TimePoint now) noexcept {
  ++statistics_.refused;
  slot.response = response_status(refusal);
  log_limited(log_.refusals, now, LogLevel::warning, "vbd",
              "{}: request refused: {} (operation {}, sector {}, {} segments)", options_.name,
              to_string(refusal), slot.request.operation, slot.request.sector,
              slot.request.segment_count);
  finish(slot);
}

// descriptors: of an indirect request.
void VbdQueue::parse(Slot& slot, std::span<const BlkifSegment> descriptors,
                     const RequestLimits& limits, TimePoint now) noexcept {
  const bool is_indirect = slot.is_indirect();
  const std::span<RequestSegment> into =
      is_indirect ? std::span<RequestSegment>(slot.indirect->segments) : slot.direct_segments;
  const Refusal refusal = parse_request(slot.request, descriptors, limits, into, slot.parsed);
  if (refusal != Refusal::none) {
    refuse(slot, refusal, now);
    return;
  }
  if (!is_indirect) {
    slot.pages_held = static_cast<std::uint32_t>(slot.parsed.segments.size());
    room_.take(slot.pages_held);
  }
  slot.operation = slot.parsed.operation;
  slot.sector = slot.parsed.sector;
  slot.sector_count = slot.parsed.sector_count;
  slot.data = slot.parsed.segments.empty() ? nullptr : slot.buffer;
  buffers_.use(slot);
  accepted_.push_back(slot);
  if (slot.parsed.is_barrier) {
    barrier_ = &slot;
  }
  if (slot.operation == BlockOperation::write) {
    add_copies(slot, GrantCopyDirection::from_guest);
  }
}

void VbdQueue::submit_arrived() noexcept {
  check_copies(accepted_, BlockOperation::write);
  submit_accepted();
  if (indirect_.empty()) {
    return;
  }
  const RequestLimits limits = this->limits();
  const TimePoint now = reactor_.turn_time();
  while (Slot* slot = indirect_.pop_front()) {
    if (!turn_.copied(slot->first_copy, 1)) {
      refuse(*slot, Refusal::descriptors_not_copied, now);
      continue;
    }
    parse(*slot, std::span(slot->indirect->descriptors).first(slot->request.segment_count), limits,
          now);
  }
  if (turn_.copies() == 0) {
    submit_accepted();
  }
}

void VbdQueue::submit_accepted() noexcept {
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
      case BlockOperation::discard:
        ++statistics_.discards;
        statistics_.discarded_sectors += slot->sector_count;
        break;
    }
    slot->submitted = true;
    if (slot == barrier_ && in_flight_ > 1) {
      barrier_waits_ = true;  // in no list; see submit_barrier()
    } else {
      submit(*slot);
    }
  }
}

void VbdQueue::submit(Slot& slot) noexcept {
  if (slot.parsed.flushes_before) {
    submit_flush(slot, Step::flush_before);
  } else {
    device_.submit(slot);
  }
}

void VbdQueue::submit_flush(Slot& slot, Step step) noexcept {
  slot.step = step;
  slot.operation = BlockOperation::flush;
  slot.sector = slot.sector_count = 0;
  slot.data = nullptr;
  device_.submit(slot);
}

void VbdQueue::submit_barrier() noexcept {
  if (in_flight_ == 1 && std::exchange(barrier_waits_, false)) {
    submit(*barrier_);
  }
}

bool VbdQueue::take_next_step(Slot& slot) noexcept {
  if (slot.step == Step::flush_before) {
    slot.step = Step::write;
    slot.operation = BlockOperation::write;
    slot.sector = slot.parsed.sector;
    slot.sector_count = slot.parsed.sector_count;
    slot.data = slot.buffer;
    device_.submit(slot);
    return true;
  }
  if (slot.step == Step::write && slot.parsed.is_barrier) {
    submit_flush(slot, Step::flush_after);
    return true;
  }
  return false;
}

void VbdQueue::break_ring(Error error) noexcept {
  if (state_ != State::serving) {
    return;
  }
  state_ = State::broken;
  log_limited(log_.breaks, reactor_.now(), LogLevel::error, "vbd", "{}: {}", options_.name,
              error.message);
  broken_because_ = std::move(error);
  consume_due_ = false;
  report_broken_.schedule();
}

// --- answers: device -> ring -------------------------------------------------------------------

void VbdQueue::on_request_complete(BlockRequest& request, IoStatus status) noexcept {
  Slot& slot = static_cast<Slot&>(request);
  VbdQueue& queue = *static_cast<VbdQueue*>(request.owner);
  if (slot.operation == BlockOperation::flush) {
    if (status != IoStatus::ok) {
      queue.on_flush_failed(slot, status);
      return;
    }
    queue.flush_retries_.succeeded(slot);
  }
  if (status == IoStatus::ok && queue.take_next_step(slot)) {
    return;
  }
  slot.response = response_status(slot.operation, status);
  if (status != IoStatus::ok) {
    log_limited(queue.log_.errors, queue.reactor_.now(), LogLevel::warning, "vbd",
                "{}: {} of {} sectors at sector {} failed: {}", queue.options_.name,
                to_string(slot.operation), slot.sector_count, slot.sector, to_string(status));
  }
  queue.finish(slot);
}

void VbdQueue::on_flush_failed(Slot& slot, IoStatus status) noexcept {
  std::optional<Error> end = flush_retries_.failed(slot, status);
  if (state_ == State::closing) {
    drop_held_flushes();
  } else if (end) {
    break_ring(std::move(*end));
  }
}

void VbdQueue::finish(Slot& slot) noexcept {
  finished_.push_back(slot);
  part_.schedule();
}

// Their ring goes: the guest finds them unanswered, which is what they are.
void VbdQueue::drop_held_flushes() noexcept {
  SlotList dropped;
  flush_retries_.take_all(dropped);
  while (Slot* slot = dropped.pop_front()) {
    finish(*slot);
  }
}

void VbdQueue::gather_finished() noexcept {
  leaving_.take_all(finished_);
  if (mapped_ == nullptr) {
    return;
  }
  leaving_.for_each([this](Slot& slot) {
    if (slot.response == kBlkifOkay && slot.operation == BlockOperation::read) {
      add_copies(slot, GrantCopyDirection::to_guest);
    }
  });
}

void VbdQueue::answer_leaving() noexcept {
  if (mapped_ != nullptr) {
    check_copies(leaving_, BlockOperation::read);
  }
  if (auto* ring = std::get_if<BackRing<BlkifX86_64>>(&ring_)) {
    publish(*ring);
  } else if (auto* ring32 = std::get_if<BackRing<BlkifX86_32>>(&ring_)) {
    publish(*ring32);
  }
  while (Slot* slot = leaving_.pop_front()) {
    release(*slot);
  }
  submit_barrier();
  finish_close_when_idle();
}

void VbdQueue::release(Slot& slot) noexcept {
  buffers_.release(slot);
  room_.give_back(slot.pages_held);
  free_slots_.push_back(&slot);
  --in_flight_;
  if (&slot == barrier_) {
    barrier_ = nullptr;
    schedule_consume();
  }
}

// The only place where the guest is told anything.
template <class Abi>
void VbdQueue::publish(BackRing<Abi>& ring) noexcept {
  const TimePoint now = reactor_.turn_time();
  leaving_.for_each([&](Slot& slot) {
    if (slot.unanswered) {
      return;
    }
    count_answer(slot, now);
    ring.put_response(slot.request.id, slot.ring_operation(), slot.response);
  });
  if (ring.publish()) {
    bell_.notify();
  }
}

void VbdQueue::count_answer(const Slot& slot, TimePoint now) {
  if (slot.response != kBlkifOkay) {
    ++statistics_.errors;
  }
  if (!slot.submitted) {
    return;
  }
  switch (slot.parsed.operation) {
    case BlockOperation::read:
      statistics_.read_latency.record(now - slot.accepted_at);
      break;
    case BlockOperation::write:
      statistics_.write_latency.record(now - slot.accepted_at);
      break;
    case BlockOperation::flush:
      statistics_.flush_latency.record(now - slot.accepted_at);
      break;
    case BlockOperation::discard:
      break;
  }
}

// --- grant copies ------------------------------------------------------------------------------

GrantCopySegment VbdQueue::copy_of(GrantCopyDirection direction, const RequestSegment& segment,
                                   std::byte* local) const {
  return {.direction = direction,
          .domain = domain_,
          .reference = segment.reference,
          .offset_bytes = segment.offset_bytes,
          .length_bytes = segment.length_bytes,
          .local = local};
}

void VbdQueue::add_descriptor_copy(Slot& slot) {
  const RequestSegment descriptors = {.reference = slot.request.indirect_references[0],
                                      .offset_bytes = 0,
                                      .length_bytes = static_cast<std::uint16_t>(
                                          slot.request.segment_count * sizeof(BlkifSegment))};
  slot.first_copy = turn_.copies();
  turn_.add_copy(copy_of(GrantCopyDirection::from_guest, descriptors,
                         reinterpret_cast<std::byte*>(slot.indirect->descriptors.data())));
}

void VbdQueue::add_copies(Slot& slot, GrantCopyDirection direction) {
  slot.first_copy = turn_.copies();
  std::byte* local = slot.buffer;
  for (const RequestSegment& segment : slot.parsed.segments) {
    turn_.add_copy(copy_of(direction, segment, local));
    local += segment.length_bytes;
  }
}

void VbdQueue::check_copies(SlotList& slots, BlockOperation operation) noexcept {
  slots.for_each([&](Slot& slot) {
    if (slot.operation != operation || slot.response != kBlkifOkay) {
      return;
    }
    if (!turn_.copied(slot.first_copy, slot.parsed.segments.size())) {
      slot.response = kBlkifError;
      log_limited(log_.errors, reactor_.now(), LogLevel::warning, "vbd",
                  "{}: the guest's pages of a {} at sector {} could not be copied", options_.name,
                  to_string(slot.operation), slot.sector);
    }
  });
}

// --- end ---------------------------------------------------------------------------------------

void VbdQueue::close(void (*on_closed)(void* owner) noexcept, void* owner) {
  ISCSI_BLKBACK_ASSERT(state_ == State::serving || state_ == State::broken);
  state_ = State::closing;
  consume_due_ = false;
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
  if (linked()) {
    unlink();
  }
  bell_.unbind();
  ring_ = std::monostate{};
  mapped_.reset();
}

}  // namespace iscsi_blkback
