#include "tests/simulation/host/disk_workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/host/product_configuration.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::seconds;

namespace {

constexpr std::uint32_t kMaxRequestSectors = kMaxDirectSegments * kSectorsPerPage;
constexpr std::uint32_t kUsualSectors = 8;
// Where nothing is wrong, no request and no connection takes so long ...
constexpr seconds kUndisturbedLimit{2};
// ... and so many commands, where one waits for the other, or as many as the guests may have there.
constexpr std::int64_t kUndisturbedCommands = 300;
constexpr std::int64_t kMostUnmaps =
    (kMaxRequestSectors + SimulatedLun::kMaxUnmapSectors - 1) / SimulatedLun::kMaxUnmapSectors;
// One after the other, before a disk is connected.
constexpr std::int64_t kIdentificationCommands = 20;

// Of all disks there at once, each request in as many pieces as its LUN wants.
std::int64_t commands_at(const Plan& plan, std::size_t target) {
  std::int64_t commands = 0;
  for (const PlannedDisk& disk : plan.disks) {
    if (target_of(plan, disk) == target) {
      const std::int64_t piece_sectors = plan.luns[static_cast<std::size_t>(disk.lun)].max_transfer;
      std::int64_t pieces =
          piece_sectors == 0 ? 1 : (kMaxRequestSectors + piece_sectors - 1) / piece_sectors;
      if (disk.discards != 0) {
        pieces = std::max(pieces, kMostUnmaps);
      }
      commands += disk.depth * pieces;
    }
  }
  return commands;
}

}  // namespace

DiskWorkload::DiskWorkload(SimulatedWorld& world, std::size_t disk)
    : world_(world),
      disk_(disk),
      lun_(lun_of(world.plan(), world.plan().disks[disk])),
      planned_(world.plan().disks[disk]),
      random_(world.plan().seed * 0x9e3779b9 + disk * 0x10001 + 5) {
  for (std::size_t depth = bounded(planned_.depth, 1, 64); depth > 0; --depth) {
    (void)add_slot(false);
  }
}

DiskWorkload::~DiskWorkload() {
  *exists_ = false;
}

DiskWorkload::Slot& DiskWorkload::add_slot(bool once) {
  const auto unused = std::find_if(slots_.begin(), slots_.end(), [](const auto& slot) {
    return slot->once && !slot->open && !slot->waiting;
  });
  if (once && unused != slots_.end()) {
    return **unused;
  }
  Slot& slot = *slots_.emplace_back(std::make_unique<Slot>());
  slot.number = slots_.size() - 1;
  slot.once = once;
  return slot;
}

// ---- the ring

void DiskWorkload::expect_ring() {
  expected_since_ = world_.reactor().now();
}

void DiskWorkload::begin(FakeFrontend& frontend, std::uint64_t ring) {
  if (const std::optional<TimePoint> since = std::exchange(expected_since_, std::nullopt)) {
    check_wait("connection", world_.reactor().now() - *since);
  }
  frontend_ = &frontend;
  const bool same = std::exchange(ring_, ring) == ring;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    slot->in_ring = slot->in_ring && same;
    if (slot->open && !slot->in_ring) {
      world_.count("request issued again");
      (void)put_into_ring(*slot);
    } else if (!slot->open && !slot->once) {
      think(*slot);
    }
  }
}

void DiskWorkload::pause() {
  frontend_ = nullptr;
  expected_since_.reset();
}

void DiskWorkload::lose() {
  frontend_ = nullptr;
  expected_since_.reset();
  counts_on_its_lun_ = false;
  ring_ = 0;
  read_back_left_ = 0;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->open) {
      world_.count("request lost with its ring");
      end(*slot, false);
    }
  }
}

void DiskWorkload::go_on() {
  stopped_ = false;
  if (frontend_ != nullptr) {
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (!slot->open && !slot->once) {
        think(*slot);
      }
    }
  }
}

bool DiskWorkload::idle() const {
  return open() == 0;
}

std::size_t DiskWorkload::open() const {
  return static_cast<std::size_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->open; }));
}

// ---- requests

void DiskWorkload::think(Slot& slot) {
  if (stopped_ || std::exchange(slot.waiting, true)) {
    return;
  }
  const std::int64_t longest = world_.plan().guests[guest_of(world_.plan(), planned_)].think_us;
  const std::uint64_t pause =
      random_.one_in(3) ? 0 : 1 + random_.below(static_cast<std::uint64_t>(longest) + 1);
  world_.later(microseconds(pause), [this, exists = exists_, &slot] {
    if (*exists) {
      slot.waiting = false;
      next(slot);
    }
  });
}

void DiskWorkload::next(Slot& slot) {
  if (stopped_ || slot.open || frontend_ == nullptr) {
    return;
  }
  const bool flush = random_.one_in(20);
  choose(slot, random_.below(10) < static_cast<std::uint64_t>(planned_.writes), flush);
  begin_request(slot);
}

// Overlaps are what it is about: half of the requests go to a place that moves now and then.
void DiskWorkload::choose(Slot& slot, bool write, bool flush) {
  const bool discard = write && !flush && planned_.discards != 0 &&
                       frontend_->discard_supported() &&
                       random_.below(10) < static_cast<std::uint64_t>(planned_.discards);
  slot.operation = flush     ? BlockOperation::flush
                   : discard ? BlockOperation::discard
                   : write   ? BlockOperation::write
                             : BlockOperation::read;
  slot.sector = slot.count = 0;
  slot.layout = {};
  if (flush) {
    return;
  }
  const std::uint64_t sectors = lun().sectors();
  if (planned_.contended != 0) {
    slot.count = static_cast<std::uint32_t>(random_.between(1, 4));
    slot.sector = random_.below(4);
    return;
  }
  if (random_.one_in(50)) {
    hot_sector_ = random_.below(sectors - kUsualSectors);
  }
  slot.count = static_cast<std::uint32_t>(
      random_.one_in(makes_indirect() ? 4 : 20)
          ? random_.between(1, std::min<std::uint64_t>(kMaxRequestSectors, sectors))
          : random_.between(1, kUsualSectors));
  slot.sector = random_.one_in(2) ? std::min(hot_sector_ + random_.below(8), sectors - slot.count)
                                  : random_.below(sectors - slot.count + 1);
  choose_layout(slot);
}

// Small segments, where the driver has indirect requests: so that there are many of them.
void DiskWorkload::choose_layout(Slot& slot) {
  if (!makes_indirect() || slot.operation == BlockOperation::discard || random_.one_in(2)) {
    return;
  }
  FakeFrontend::Layout layout;
  layout.sectors_per_segment = static_cast<std::uint8_t>(random_.between(1, 2));
  layout.first_sector =
      static_cast<std::uint8_t>(random_.below(kSectorsPerPage - layout.sectors_per_segment + 1U));
  const std::uint32_t segments =
      (slot.count + layout.sectors_per_segment - 1) / layout.sectors_per_segment;
  if (segments <= frontend_->max_segments()) {
    slot.layout = layout;
    if (segments > kMaxDirectSegments) {
      world_.count("indirect request");
    }
  }
}

void DiskWorkload::begin_request(Slot& slot) {
  slot.open = true;
  switch (slot.operation) {
    case BlockOperation::read:
      slot.ticket = lun().oracle().read_begins();
      break;
    case BlockOperation::write:
      slot.version = world_.next_version();
      lun().oracle().write_begins(slot.sector, slot.count, slot.version);
      break;
    case BlockOperation::flush:
      slot.flushes_before = lun().lun().counters.flushes;
      break;
    case BlockOperation::discard:
      slot.version = world_.next_version();
      lun().oracle().discard_begins(slot.sector, slot.count, slot.version);
      break;
  }
  if (!put_into_ring(slot)) {
    end(slot, false);  // there is no room
    if (!slot.once) {
      think(slot);
    }
  }
}

bool DiskWorkload::makes_indirect() const {
  return frontend_->max_segments() > kMaxDirectSegments;
}

bool DiskWorkload::has_room() const {
  for (std::size_t i = 0; i < frontend_->queue_count(); ++i) {
    if (frontend_->queue(i).free_slots() > 0) {
      return true;
    }
  }
  return false;
}

// Any that has room, as a driver's is that of the processor that it happens to run on. Null: none.
FakeFrontend* DiskWorkload::choose_queue() {
  const std::size_t count = frontend_->queue_count();
  const std::size_t first = count > 1 ? random_.below(count) : 0;
  for (std::size_t i = 0; i < count; ++i) {
    FakeFrontend& queue = frontend_->queue((first + i) % count);
    if (queue.free_slots() > 0) {
      if (&queue != frontend_) {
        world_.count("request in another queue than the first");
      }
      return &queue;
    }
  }
  return nullptr;
}

bool DiskWorkload::put_into_ring(Slot& slot) {
  FakeFrontend* const queue = choose_queue();
  slot.issued = world_.reactor().now();
  slot.in_ring = queue != nullptr;
  if (queue == nullptr) {
    return false;
  }
  std::optional<FakeFrontend::RequestId> id;
  switch (slot.operation) {
    case BlockOperation::read:
      id = queue->read(slot.sector, slot.count, slot.layout, slot.number);
      break;
    case BlockOperation::write:
      data_.resize(std::size_t{slot.count} * kSectorBytes);
      SectorOracle::fill(data_, slot.sector, slot.version);
      id = queue->write(slot.sector, data_, slot.layout, slot.number);
      break;
    case BlockOperation::flush:
      id = queue->flush(slot.number);
      break;
    case BlockOperation::discard:
      id = queue->discard(slot.sector, slot.count, slot.number);
      break;
  }
  ISCSI_BLKBACK_ASSERT(id.has_value());
  queue->push();
  return true;
}

void DiskWorkload::on_completion(const FakeFrontend::Completion& completion) {
  if (ring_ == 0) {
    return;  // of a kernel that is no more
  }
  Slot& slot = *slots_[completion.tag];
  const bool ok = completion.status == kBlkifOkay;
  if (!slot.open || !slot.in_ring) {
    fail(Rule::ring, "a request is answered that is not open");
    return;
  }
  world_.count("request answered");
  world_.note_answer(completion.tag << 8 | static_cast<std::uint8_t>(completion.status));
  check_wait(to_string(slot.operation), world_.reactor().now() - slot.issued);
  if (!ok && !errors_expected_ &&
      (world_.plan().luns[lun_].no_path_retry_ms == 0 || slot.operation == BlockOperation::flush)) {
    fail(Rule::error, fmt::format("a {} of sector {} failed with status {}",
                                  to_string(slot.operation), slot.sector, completion.status));
  }
  if (ok && slot.operation == BlockOperation::read) {
    check_read(slot, completion.data);
  }
  if (ok && slot.operation == BlockOperation::flush &&
      lun().lun().counters.flushes == slot.flushes_before) {
    fail(Rule::data, "a flush succeeded without having reached the LUN");
  }
  if (read_back_left_ > 0 && slot.once) {
    --read_back_left_;
  }
  end(slot, ok);
  // A request of a move that found no room waits for this.
  for (const std::unique_ptr<Slot>& other : slots_) {
    if (frontend_ != nullptr && other->open && !other->in_ring) {
      (void)put_into_ring(*other);
    }
  }
  if (frontend_ != nullptr && !slot.once) {
    think(slot);
  }
}

void DiskWorkload::check_wait(std::string_view what, Duration took) {
  if (!lun().disturbed() && took > undisturbed_limit()) {
    fail(Rule::needless_wait,
         fmt::format("a {} took {} ms where nothing was wrong", what,
                     std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
  }
}

Duration DiskWorkload::undisturbed_limit() const {
  const Plan& plan = world_.plan();
  const std::size_t number = target_of(plan, planned_);
  const PlannedTarget& target = plan.targets[number];
  std::int64_t commands = kIdentificationCommands;
  if (target.single_threaded != 0) {
    commands = std::max(kUndisturbedCommands, commands_at(plan, number));
  }
  return kUndisturbedLimit + microseconds(target.delay_us * commands);
}

void DiskWorkload::check_read(const Slot& slot, std::span<const std::byte> data) {
  if (std::string wrong = lun().oracle().read_ends(slot.sector, data, slot.ticket);
      !wrong.empty()) {
    fail(Rule::data, std::move(wrong));
  }
}

void DiskWorkload::end(Slot& slot, bool ok) {
  slot.open = slot.in_ring = false;
  if (slot.operation == BlockOperation::write || slot.operation == BlockOperation::discard) {
    lun().oracle().write_ends(slot.sector, slot.count, slot.version, ok);
    counts_on_its_lun_ = counts_on_its_lun_ || ok;
  }
}

void DiskWorkload::burst(std::size_t count, bool reads) {
  for (; count > 0 && frontend_ != nullptr && has_room(); --count) {
    Slot& slot = add_slot(true);
    choose(slot, !reads, false);
    begin_request(slot);
  }
}

bool DiskWorkload::read_back() {
  if (frontend_ == nullptr) {
    return false;
  }
  read_back_left_ = 0;
  for (std::uint64_t sector = 0; sector < lun().sectors();) {
    Slot& slot = add_slot(true);
    slot.operation = BlockOperation::read;
    slot.sector = sector;
    slot.layout = {};
    slot.count = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(kMaxRequestSectors, lun().sectors() - sector));
    sector += slot.count;
    ++read_back_left_;
    begin_request(slot);
  }
  return true;
}

void DiskWorkload::fail(Rule rule, std::string what) {
  world_.fail(rule, fmt::format("disk {} (LUN {}): {}", disk_, lun_, std::move(what)));
}

}  // namespace iscsi_blkback
