#include "tests/support/fake_frontend.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <utility>

namespace iscsi_blkback {
namespace {

// XenbusState's numbers (xen/io/xenbus.h).
constexpr int kInitialising = 1;
constexpr int kInitWait = 2;
constexpr int kInitialised = 3;
constexpr int kConnected = 4;
constexpr int kClosing = 5;
constexpr int kClosed = 6;

const char* protocol_name(BlkifAbi abi) {
  switch (abi) {
    case BlkifAbi::native:
    case BlkifAbi::x86_64:
      return "x86_64-abi";
    case BlkifAbi::x86_32:
      return "x86_32-abi";
  }
  return "";
}

std::uint64_t parse_number(const Result<std::string>& text, std::uint64_t otherwise) {
  std::uint64_t value = otherwise;
  if (text) {
    std::from_chars(text->data(), text->data() + text->size(), value);
  }
  return value;
}

}  // namespace

FakeFrontend::FakeFrontend(MemXen& xen, Options options)
    : xen_(xen),
      options_(options),
      events_(xen.events().open(options.domain)),
      indirect_segments_(options.indirect_segments) {}

FakeFrontend::~FakeFrontend() {
  if (ring_up_) {
    tear_down_ring();
  }
}

void FakeFrontend::set_up_ring() {
  ISCSI_BLKBACK_ASSERT(!ring_up_);
  ring_memory_ = std::make_unique<GuestMemory>(options_.ring_pages);
  ring_.emplace(ring_pages(), options_.abi, options_.start_index);
  data_memory_ = std::make_unique<GuestMemory>(slot_count() * pages_per_slot() + 1);
  // From the last page to the first, so that the references do not ascend.
  ring_references_.resize(options_.ring_pages);
  for (std::size_t page = options_.ring_pages; page-- > 0;) {
    ring_references_[page] =
        xen_.grants().grant(options_.domain, *ring_memory_, page, options_.backend, false);
  }
  grant_spare();
  port_ = events_->allocate_unbound(options_.backend);
  slots_.assign(slot_count(), Slot{});
  free_.clear();
  for (std::uint32_t slot = slot_count(); slot-- > 0;) {
    free_.push_back(slot);
  }
  outstanding_ = tolerated_ = 0;
  ring_up_ = true;
  ++ring_life_;
}

void FakeFrontend::grant_spare() {
  const std::size_t spare = slot_count() * pages_per_slot();
  spare_reference_ =
      xen_.grants().grant(options_.domain, *data_memory_, spare, options_.backend, false);
  spare_read_only_ =
      xen_.grants().grant(options_.domain, *data_memory_, spare, options_.backend, true);
}

std::size_t FakeFrontend::tear_down_ring() {
  ISCSI_BLKBACK_ASSERT(ring_up_);
  std::size_t dropped = 0;
  for (Slot& slot : slots_) {
    if (slot.used) {
      ++dropped;
      end_grants(slot);
      slot.used = false;
    }
  }
  std::vector<GrantReference> references = ring_references_;
  references.push_back(spare_reference_);
  references.push_back(spare_read_only_);
  for (const GrantReference reference : references) {
    if (!xen_.grants().end_access(options_.domain, reference)) {
      violation(fmt::format("grant {} is still mapped when the ring is taken down", reference));
      xen_.grants().revoke(options_.domain, reference);
    }
  }
  events_->unbind(port_);
  ring_references_.clear();
  outstanding_ = 0;
  ring_up_ = false;
  return dropped;
}

std::span<std::byte> FakeFrontend::data_pages(std::uint32_t slot) const {
  return data_memory_->pages(slot * pages_per_slot(), data_pages_per_slot());
}

std::span<std::byte> FakeFrontend::spare_page() const {
  return data_memory_->page(slot_count() * pages_per_slot());
}

std::span<std::byte> FakeFrontend::descriptor_page(RequestId id) const {
  return data_memory_->page(static_cast<std::uint32_t>(id) * pages_per_slot() +
                            data_pages_per_slot());
}

std::optional<std::uint32_t> FakeFrontend::take_slot() {
  if (free_.empty() || ring_->full()) {
    return std::nullopt;
  }
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  const std::uint32_t generation = slots_[slot].generation + 1;
  slots_[slot] = Slot{};
  slots_[slot].used = true;
  slots_[slot].generation = generation;
  ++outstanding_;
  return slot;
}

FakeFrontend::RequestId FakeFrontend::id_of(std::uint32_t slot) const {
  return (RequestId{slots_[slot].generation} << 32) | slot;
}

FakeFrontend::RequestId FakeFrontend::put(std::uint32_t slot, const BlkifRequest& request) {
  slots_[slot].operation =
      request.operation == kBlkifIndirect ? request.indirect_operation : request.operation;
  ring_->put(request);
  return request.id;
}

std::optional<FakeFrontend::RequestId> FakeFrontend::data_request(
    std::uint8_t operation, std::uint64_t sector, std::uint32_t sector_count, Layout layout,
    std::span<const std::byte> data, std::uint64_t tag) {
  ISCSI_BLKBACK_ASSERT(layout.sectors_per_segment > 0 &&
                       layout.first_sector + layout.sectors_per_segment <= kSectorsPerPage);
  ISCSI_BLKBACK_ASSERT(sector_count > 0 &&
                       sector_count <= layout.sectors_per_segment * max_segments());
  const std::optional<std::uint32_t> taken = take_slot();
  if (!taken) {
    return std::nullopt;
  }
  Slot& slot = slots_[*taken];
  slot.layout = layout;
  slot.sector_count = sector_count;
  slot.tag = tag;
  slot.data_is_ours = true;
  BlkifRequest request{};
  request.operation = operation;
  request.id = id_of(*taken);
  request.sector = sector;
  const std::uint32_t count_of_all =
      (sector_count + layout.sectors_per_segment - 1) / layout.sectors_per_segment;
  std::span<BlkifSegment> segments = request.segments;
  std::vector<BlkifSegment> described;
  if (count_of_all > kMaxDirectSegments) {
    described.resize(count_of_all);
    segments = described;
  }
  const std::span<std::byte> pages = data_pages(*taken);
  const std::size_t first_page = *taken * pages_per_slot();
  for (std::uint32_t done = 0; done < sector_count;) {
    const std::uint32_t count =
        std::min<std::uint32_t>(layout.sectors_per_segment, sector_count - done);
    const std::size_t index = slot.references.size();
    slot.references.push_back(xen_.grants().grant(options_.domain, *data_memory_,
                                                  first_page + index, options_.backend,
                                                  operation != kBlkifRead));
    BlkifSegment& segment = segments[index];
    segment.reference = slot.references[index];
    segment.first_sector = layout.first_sector;
    segment.last_sector = static_cast<std::uint8_t>(layout.first_sector + count - 1);
    if (!data.empty()) {
      std::memcpy(pages.data() + index * kXenPageBytes + layout.first_sector * std::size_t{512},
                  data.data() + done * std::size_t{512}, count * std::size_t{512});
    }
    done += count;
  }
  request.segment_count = static_cast<std::uint16_t>(count_of_all);
  if (!described.empty()) {
    const std::size_t page = first_page + data_pages_per_slot();
    std::memcpy(data_memory_->page(page).data(), described.data(),
                described.size() * sizeof(BlkifSegment));
    slot.references.push_back(
        xen_.grants().grant(options_.domain, *data_memory_, page, options_.backend, true));
    request.operation = kBlkifIndirect;
    request.indirect_operation = operation;
    request.indirect_references[0] = slot.references.back();
  }
  return put(*taken, request);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::read(std::uint64_t sector,
                                                          std::uint32_t sector_count,
                                                          std::uint64_t tag) {
  return data_request(kBlkifRead, sector, sector_count, Layout{}, {}, tag);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::read(std::uint64_t sector,
                                                          std::uint32_t sector_count, Layout layout,
                                                          std::uint64_t tag) {
  return data_request(kBlkifRead, sector, sector_count, layout, {}, tag);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::write(std::uint64_t sector,
                                                           std::span<const std::byte> data,
                                                           std::uint64_t tag) {
  return write(sector, data, Layout{}, tag);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::write(std::uint64_t sector,
                                                           std::span<const std::byte> data,
                                                           Layout layout, std::uint64_t tag) {
  ISCSI_BLKBACK_ASSERT(data.size() % 512 == 0);
  return data_request(kBlkifWrite, sector, static_cast<std::uint32_t>(data.size() / 512), layout,
                      data, tag);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::flush(std::uint64_t tag) {
  return empty_request(kBlkifFlush, tag);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::flush_and_write(
    std::uint64_t sector, std::span<const std::byte> data) {
  return data_request(kBlkifFlush, sector, static_cast<std::uint32_t>(data.size() / 512), Layout{},
                      data, 0);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::barrier(std::uint64_t sector,
                                                             std::span<const std::byte> data) {
  return data.empty()
             ? empty_request(kBlkifWriteBarrier, 0)
             : data_request(kBlkifWriteBarrier, sector,
                            static_cast<std::uint32_t>(data.size() / 512), Layout{}, data, 0);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::empty_request(std::uint8_t operation,
                                                                   std::uint64_t tag) {
  const std::optional<std::uint32_t> taken = take_slot();
  if (!taken) {
    return std::nullopt;
  }
  slots_[*taken].tag = tag;
  BlkifRequest request{};
  request.operation = operation;
  request.id = id_of(*taken);
  return put(*taken, request);
}

std::optional<FakeFrontend::RequestId> FakeFrontend::discard(std::uint64_t sector,
                                                             std::uint64_t sector_count,
                                                             std::uint64_t tag) {
  const std::optional<std::uint32_t> taken = take_slot();
  if (!taken) {
    return std::nullopt;
  }
  slots_[*taken].tag = tag;
  BlkifRequest request;
  request.operation = kBlkifDiscard;
  request.id = id_of(*taken);
  request.sector = sector;
  request.discard_sectors = sector_count;
  return put(*taken, request);
}

void FakeFrontend::push() {
  if (ring_->push()) {
    ring_doorbell();
  }
}

std::size_t FakeFrontend::poll() {
  bool rang = false;
  while (const std::optional<LocalPort> port = events_->next_pending()) {
    rang = true;
    (void)events_->unmask(*port);
  }
  if (!rang || !ring_up_) {
    return 0;
  }
  std::size_t taken = 0;
  for (;;) {
    const std::optional<std::uint32_t> waiting = ring_->waiting();
    if (!waiting) {
      violation(fmt::format("responses up to {} of requests up to {}", ring_->response_producer(),
                            ring_->pushed()));
      return taken;
    }
    for (std::uint32_t left = *waiting; left > 0; --left) {
      ++taken;
      take_response(ring_->take());
    }
    if (!ring_->final_check()) {
      return taken;
    }
  }
}

void FakeFrontend::take_response(const FrontRing::Response& response) {
  const auto [id, operation, status, padding_is_clean] = response;
  if (!padding_is_clean) {
    violation("a response has something in its padding");
  }
  const auto index = static_cast<std::uint32_t>(id);
  if (index >= slot_count() || !slots_[index].used || id_of(index) != id) {
    violation(fmt::format("response for id {:#x}, which is not in flight", id));
    return;
  }
  Slot& slot = slots_[index];
  if (slot.operation != operation) {
    violation(fmt::format("response for id {:#x} with operation {} instead of {}", id, operation,
                          slot.operation));
  }
  if (status != kBlkifOkay && status != kBlkifError && status != kBlkifNotSupported) {
    violation(fmt::format("response for id {:#x} with status {}", id, status));
  }
  end_grants(slot);
  Completion completion;
  completion.id = id;
  completion.operation = operation;
  completion.status = status;
  completion.tag = slot.tag;
  if (slot.operation == kBlkifRead && slot.data_is_ours && status == kBlkifOkay) {
    completion.data = gather(index);
  }
  slot.used = false;
  free_.push_back(index);
  --outstanding_;
  if (handler_) {
    handler_(completion);
  } else {
    answers_.emplace_back(
        id, Answer{status, operation, {completion.data.begin(), completion.data.end()}});
  }
}

void FakeFrontend::end_grants(Slot& slot) {
  if (!slot.data_is_ours) {
    return;
  }
  for (const GrantReference reference : slot.references) {
    if (!xen_.grants().end_access(options_.domain, reference)) {
      violation(fmt::format("grant {} is still mapped when its request is answered", reference));
      xen_.grants().revoke(options_.domain, reference);
    }
  }
}

std::span<const std::byte> FakeFrontend::gather(std::uint32_t index) {
  const Slot& slot = slots_[index];
  const std::span<std::byte> pages = data_pages(index);
  const std::size_t bytes = slot.sector_count * std::size_t{512};
  if (slot.layout.sectors_per_segment == kSectorsPerPage) {
    return pages.first(bytes);
  }
  gathered_.clear();
  for (std::size_t i = 0; gathered_.size() < bytes; ++i) {
    const std::size_t count =
        std::min(slot.layout.sectors_per_segment * std::size_t{512}, bytes - gathered_.size());
    const auto from =
        pages.subspan(i * kXenPageBytes + slot.layout.first_sector * std::size_t{512}, count);
    gathered_.insert(gathered_.end(), from.begin(), from.end());
  }
  return gathered_;
}

std::optional<FakeFrontend::Answer> FakeFrontend::take_completion(RequestId id) {
  const auto at = std::find_if(answers_.begin(), answers_.end(),
                               [id](const auto& answer) { return answer.first == id; });
  if (at == answers_.end()) {
    return std::nullopt;
  }
  Answer answer = std::move(at->second);
  answers_.erase(at);
  return answer;
}

void FakeFrontend::violation(const std::string& text) {
  if (tolerated_ > 0) {
    --tolerated_;
    return;
  }
  xen_.faults().report(fmt::format("frontend of domain {}: {}", options_.domain, text));
}

// --- xenstore ----------------------------------------------------------------------------------

std::string FakeFrontend::path() const {
  return fmt::format("/local/domain/{}/device/vbd/{}", options_.domain, options_.device_id);
}

void FakeFrontend::start() {
  store_ = xen_.store().connect(options_.domain);
  const Result<std::string> backend = store_->read(path() + "/backend");
  ISCSI_BLKBACK_ASSERT(backend.has_value());
  backend_path_ = *backend;
  state_ = kInitialising;
  ISCSI_BLKBACK_ASSERT(store_->watch(backend_path_ + "/state", "backend").has_value());
}

bool FakeFrontend::step() {
  bool any = false;
  for (;;) {
    Result<std::optional<WatchEvent>> event = store_->next_event();
    if (!event || !*event) {
      return any;
    }
    any = true;
    on_backend_state(static_cast<int>(parse_number(store_->read(backend_path_ + "/state"), 0)));
  }
}

void FakeFrontend::on_backend_state(int state) {
  switch (state) {
    case kInitWait:
      if (state_ == kInitialising) {
        talk_to_backend();
      }
      break;
    case kConnected:
      if (state_ == kInitialised || state_ == kConnected) {
        read_capacity();
        if (state_ == kInitialised) {
          write_state(kConnected);
        }
      }
      break;
    case kClosing:
      if (restarting_ && state_ == kClosing) {
        write_state(kClosed);
        break;
      }
      if (state_ == kClosing || state_ == kClosed) {
        break;
      }
      write_state(options_.busy_at_closing ? kClosing : kClosed);
      break;
    case kClosed:
      if (state_ != kClosed) {
        write_state(kClosed);
      }
      tear_down_queues();
      if (std::exchange(restarting_, false)) {
        write_state(kInitialising);
      }
      break;
    default:
      break;
  }
}

void FakeFrontend::resume() {
  tear_down_queues();
  talk_to_backend();
}

void FakeFrontend::restart() {
  restarting_ = true;
  write_state(kClosing);
}

void FakeFrontend::restart_abruptly() {
  write_state(kInitialising);
}

void FakeFrontend::write_state(int state) {
  state_ = state;
  ISCSI_BLKBACK_ASSERT(store_->write(path() + "/state", std::to_string(state)).has_value());
}

void FakeFrontend::tear_down_queues() {
  if (ring_up_) {
    tear_down_ring();
  }
  for (FakeFrontend* queue : more_queues_) {
    queue->tear_down_queues();
  }
}

void FakeFrontend::write_queue(XenStoreAccess& at, const std::string& directory) const {
  const auto put = [&](const std::string& key, std::uint32_t value) {
    ISCSI_BLKBACK_ASSERT(at.write(directory + "/" + key, std::to_string(value)).has_value());
  };
  if (options_.ring_pages == 1) {
    put("ring-ref", ring_references_[0]);
  } else {
    for (std::size_t i = 0; i < ring_references_.size(); ++i) {
      put(fmt::format("ring-ref{}", i), ring_references_[i]);
    }
  }
  put("event-channel", port_);
}

void FakeFrontend::talk_to_backend() {
  const std::uint64_t order = parse_number(store_->read(backend_path_ + "/max-ring-page-order"), 0);
  const std::uint32_t wanted = options_.ring_pages;
  options_.ring_pages = std::min(wanted, std::uint32_t{1} << std::min<std::uint64_t>(order, 4));
  tear_down_queues();
  set_up_ring();
  const std::uint64_t most =
      parse_number(store_->read(backend_path_ + "/multi-queue-max-queues"), 1);
  queue_count_ = std::min<std::size_t>(more_queues_.size() + 1, most);
  for (std::size_t i = 1; i < queue_count_; ++i) {
    more_queues_[i - 1]->options_.ring_pages = options_.ring_pages;
    more_queues_[i - 1]->options_.indirect_segments = options_.indirect_segments;
    more_queues_[i - 1]->set_up_ring();
  }
  const Result<void> written = store_->transaction([&](XenStoreAccess& at) -> Result<void> {
    const auto put = [&](const std::string& key, const std::string& value) {
      ISCSI_BLKBACK_ASSERT(at.write(path() + "/" + key, value).has_value());
    };
    if (options_.ring_pages > 1) {
      put("ring-page-order", std::to_string(std::countr_zero(options_.ring_pages)));
    }
    if (queue_count_ == 1) {
      write_queue(at, path());
    } else {
      put("multi-queue-num-queues", std::to_string(queue_count_));
      write_queue(at, path() + "/queue-0");
      for (std::size_t i = 1; i < queue_count_; ++i) {
        more_queues_[i - 1]->write_queue(at, fmt::format("{}/queue-{}", path(), i));
      }
    }
    if (options_.write_protocol) {
      put("protocol", protocol_name(options_.abi));
    }
    put("feature-persistent", "0");
    return {};
  });
  ISCSI_BLKBACK_ASSERT(written.has_value());
  write_state(kInitialised);
}

void FakeFrontend::read_capacity() {
  sectors_ = parse_number(store_->read(backend_path_ + "/sectors"), 0);
  sector_size_ =
      static_cast<std::uint32_t>(parse_number(store_->read(backend_path_ + "/sector-size"), 0));
  physical_sector_size_ = static_cast<std::uint32_t>(
      parse_number(store_->read(backend_path_ + "/physical-sector-size"), sector_size_));
  info_ = static_cast<std::uint32_t>(parse_number(store_->read(backend_path_ + "/info"), 0));
  flush_supported_ = parse_number(store_->read(backend_path_ + "/feature-flush-cache"), 0) == 1;
  discard_supported_ = parse_number(store_->read(backend_path_ + "/feature-discard"), 0) == 1;
  const std::uint64_t segments =
      parse_number(store_->read(backend_path_ + "/feature-max-indirect-segments"), 0);
  for (std::size_t i = 0; i < queue_count_; ++i) {
    queue(i).indirect_segments_ =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(options_.indirect_segments, segments));
  }
}

// --- evil --------------------------------------------------------------------------------------

std::optional<FakeFrontend::RequestId> FakeFrontend::raw(BlkifRequest request) {
  const std::optional<std::uint32_t> taken = take_slot();
  if (!taken) {
    return std::nullopt;
  }
  request.id = id_of(*taken);
  return put(*taken, request);
}

std::span<std::byte> FakeFrontend::ring_pages() const {
  return ring_memory_->pages(0, options_.ring_pages);
}

void FakeFrontend::scribble(std::size_t offset, std::byte value) {
  const std::span<std::byte> slots = ring_pages().subspan(sizeof(SharedRingHeader));
  slots[offset % slots.size()] = value;
  ++tolerated_;
}

void FakeFrontend::set_request_producer(std::uint32_t index) {
  tolerated_ += slot_count();
  ring_->set_request_producer(index);
  ring_doorbell();
}

void FakeFrontend::ring_doorbell() {
  (void)events_->notify(port_);
}

bool FakeFrontend::revoke_data(RequestId id) {
  Slot& slot = slots_[static_cast<std::uint32_t>(id)];
  if (!slot.used || !slot.data_is_ours) {
    return false;
  }
  end_grants(slot);
  slot.references.clear();
  return true;
}

void FakeFrontend::regrant_spare() {
  const GrantReference former = spare_reference_;
  const GrantReference former_read_only = spare_read_only_;
  grant_spare();
  (void)xen_.grants().end_access(options_.domain, former);
  (void)xen_.grants().end_access(options_.domain, former_read_only);
}

}  // namespace iscsi_blkback
