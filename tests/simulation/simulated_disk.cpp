#include "tests/simulation/simulated_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

using std::chrono::microseconds;

namespace {

constexpr std::byte kAnswered{0xee};

}  // namespace

SimulatedDisk::SimulatedDisk(World& world, std::uint64_t seed, std::uint16_t lun_number,
                             const MultipathOptions& options, bool through_ring)
    : world_(world),
      lun_number_(lun_number),
      options_(options),
      random_(seed),
      through_ring_(through_ring) {
  SimLunOptions lun_options;
  lun_options.block_count = kSimulatedSectors;
  lun_options.naa_extension = lun_number + 1U;
  if (random_.one_in(3)) {
    lun_options.max_transfer_blocks = static_cast<std::uint32_t>(random_.between(3, 12));
  }
  lun_options.thin_provisioned = seed % 4 == 0;
  lun_options.max_unmap_blocks = 12;  // less than a request may have, and no multiple of its units
  lun_ = std::make_shared<SimLun>(lun_options);
  device_ = std::make_unique<MultipathDevice>(world.reactor(), world.fencing(), options, *this);
}

void SimulatedDisk::add_path(Session& session) {
  if (const Result<void> added = device_->add_path(session, lun_number_); !added) {
    fail("a path is not added: " + added.error().message);
  }
}

bool SimulatedDisk::remove_path(const Session& session) {
  const std::size_t paths = device_->snapshot().paths.size();
  const Result<void> removed = device_->remove_path(session, lun_number_);
  if (removed.has_value() != (paths > 1)) {
    fail(fmt::format("one of {} paths {}", paths, removed ? "is removed" : "is not removed"));
  }
  return removed.has_value();
}

bool SimulatedDisk::can_be_attached_again() const {
  return ring_ == nullptr && !through_ring_ && device_->ready() && device_->snapshot().leaving == 0;
}

bool SimulatedDisk::has_former_life() const {
  return std::any_of(former_.begin(), former_.end(),
                     [](const auto& life) { return !life->closed; });
}

void SimulatedDisk::attach_again(const std::vector<Session*>& sessions) {
  for (const std::unique_ptr<Slot>& slot : slots_) {
    slot->detached = slot->open;
  }
  FormerLife& former = *former_.emplace_back(std::make_unique<FormerLife>());
  former.device = std::move(device_);
  // Other LUNs may be behind the numbers just now; the operator says which one is meant.
  options_.wwid = former.device->snapshot().wwid;
  former.device->close(
      true, [](void* life) noexcept { static_cast<FormerLife*>(life)->closed = true; }, &former);
  device_ = std::make_unique<MultipathDevice>(world_.reactor(), world_.fencing(), options_, *this);
  for (Session* session : sessions) {
    add_path(*session);
  }
}

void SimulatedDisk::on_path_removed(MultipathDevice& /*device*/, Session& session) noexcept {
  world_.path_removed(lun_number_, session);
}

void SimulatedDisk::on_ready(MultipathDevice& device) noexcept {
  if (&device != device_.get() || !slots_.empty()) {
    return;
  }
  if (through_ring_) {
    ring_ = std::make_unique<RingGuest>(world_.reactor(), *device_,
                                        static_cast<std::uint32_t>(random_.next()));
  }
  const std::uint64_t depth = random_.between(2, 16);
  for (std::uint64_t i = 0; i < depth; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    schedule_next(*slots_.back());
  }
}

void SimulatedDisk::schedule_next(Slot& slot) {
  if (guest_stopped_) {
    return;
  }
  const std::uint64_t pause_us =
      device_->ready() && random_.one_in(3) ? 0 : 1 + random_.below(20000);
  world_.reactor().schedule(microseconds(pause_us), [this, &slot] {
    if (!device_->ready()) {
      schedule_next(slot);
    } else if (!guest_stopped_) {
      submit_random(slot);
    }
  });
}

void SimulatedDisk::submit_random(Slot& slot) {
  const std::uint64_t kind = random_.below(20);
  if (kind == 0) {
    submit(slot, BlockOperation::flush, 0, 0);
    return;
  }
  // Overlaps are what it is about: half of the requests go to a place that moves now and then.
  if (random_.one_in(50)) {
    hot_sector_ = random_.below(kSimulatedSectors - 16);
  }
  if (world_.contended()) {
    const std::uint64_t sector = random_.below(4);
    submit(slot, kind < 8 ? BlockOperation::write : BlockOperation::read, sector,
           static_cast<std::uint32_t>(random_.between(1, 4)));
    return;
  }
  const auto count = static_cast<std::uint32_t>(random_.between(1, 16));
  const std::uint64_t sector =
      random_.one_in(2) ? std::min(hot_sector_ + random_.below(8), kSimulatedSectors - count)
                        : random_.below(kSimulatedSectors - count + 1);
  const BlockOperation changes =
      kind < 4 && lun_->options.thin_provisioned ? BlockOperation::discard : BlockOperation::write;
  submit(slot, kind < 11 ? changes : BlockOperation::read, sector, count);
}

void SimulatedDisk::submit(Slot& slot, BlockOperation operation, std::uint64_t sector,
                           std::uint32_t count) {
  check_untouched(slot);
  slot.disk = this;
  slot.open = true;
  ++open_;
  // In one place for ever: a device that is broken on purpose still writes there.
  slot.data.reserve(std::size_t{kSimulatedSectors} * kSectorBytes);
  slot.data.assign(std::size_t{count} * kSectorBytes, std::byte{0xa5});
  slot.block.operation = operation;
  slot.block.sector = sector;
  slot.block.sector_count = count;
  const bool has_data = operation == BlockOperation::read || operation == BlockOperation::write;
  slot.block.data = has_data ? slot.data.data() : nullptr;
  slot.block.owner = &slot;
  slot.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
    Slot& done = *static_cast<Slot*>(block.owner);
    done.disk->completed(done, status);
  };
  switch (operation) {
    case BlockOperation::read:
      slot.ticket = oracle_.read_begins();
      break;
    case BlockOperation::write:
      slot.version = world_.next_version();
      SectorOracle::fill(slot.data, sector, slot.version);
      oracle_.write_begins(sector, count, slot.version);
      break;
    case BlockOperation::flush:
      slot.flushes_before = lun_->counters.flushes;
      break;
    case BlockOperation::discard:
      slot.version = world_.next_version();
      oracle_.discard_begins(sector, count, slot.version);
      break;
  }
  slot.submitting = true;
  if (ring_ != nullptr && count <= RingGuest::kMaxSectors) {
    ring_->submit(slot.block);
  } else {
    device_->submit(slot.block);
  }
  slot.submitting = false;
}

void SimulatedDisk::check_untouched(const Slot& slot) {
  if (!slot.open && std::any_of(slot.data.begin(), slot.data.end(),
                                [](std::byte byte) { return byte != kAnswered; })) {
    fail(fmt::format("the buffer of a {} was written to after its answer",
                     to_string(slot.block.operation)));
  }
}

void SimulatedDisk::completed(Slot& slot, IoStatus status) {
  if (!slot.open) {
    fail("a request completed twice");
    return;
  }
  if (slot.submitting) {
    fail("a request completed from inside submit");
  }
  slot.open = false;
  --open_;
  const BlockRequest& block = slot.block;
  world_.count_answer(block.operation, status);
  const bool ok = status == IoStatus::ok;
  const bool no_path = status == (ring_ != nullptr && &slot != &reader_ ? IoStatus::target_error
                                                                        : IoStatus::no_path);
  const bool detached = std::exchange(slot.detached, false) && status == IoStatus::aborted;
  if (!ok && !detached &&
      !(options_.no_path_retry && no_path && block.operation != BlockOperation::flush)) {
    fail(fmt::format("{} of sector {} ended with {}", to_string(block.operation), block.sector,
                     to_string(status)));
  }
  switch (block.operation) {
    case BlockOperation::read:
      if (ok) {
        if (std::string wrong = oracle_.read_ends(block.sector, slot.data, slot.ticket);
            !wrong.empty()) {
          fail(std::move(wrong));
        }
      }
      break;
    case BlockOperation::write: {
      std::vector<std::byte> expected(slot.data.size());
      SectorOracle::fill(expected, block.sector, slot.version);
      if (expected != slot.data) {
        fail("the device changed the data of a write");
      }
      oracle_.write_ends(block.sector, block.sector_count, slot.version, ok);
      break;
    }
    case BlockOperation::flush:
      if (ok && lun_->counters.flushes == slot.flushes_before) {
        fail("a flush succeeded without having reached the LUN");
      }
      break;
    case BlockOperation::discard:
      oracle_.write_ends(block.sector, block.sector_count, slot.version, ok);
      break;
  }
  // The buffer is the guest's again: what is still sent from it now must not reach the medium, and
  // nothing may arrive in it.
  std::fill(slot.data.begin(), slot.data.end(), kAnswered);
  if (&slot != &reader_) {
    schedule_next(slot);
  }
}

void SimulatedDisk::read_back() {
  submit(reader_, BlockOperation::read, 0, kSimulatedSectors);
}

void SimulatedDisk::check_medium() {
  const std::uint64_t ticket = oracle_.read_begins();
  if (std::string wrong = oracle_.read_ends(0, lun_->medium(), ticket); !wrong.empty()) {
    fail("in the end " + wrong);
  }
}

void SimulatedDisk::close() {
  if (ring_ != nullptr) {
    ring_->close();
  }
  device_->close(
      false, [](void* self) noexcept { static_cast<SimulatedDisk*>(self)->closed_ = true; }, this);
}

void SimulatedDisk::check_nothing_left() {
  if (ring_ != nullptr) {
    for (const std::string& violation : ring_->take_violations()) {
      fail("at the ring: " + violation);
    }
  }
  for (const std::unique_ptr<Slot>& slot : slots_) {
    check_untouched(*slot);
  }
  for (const std::unique_ptr<FormerLife>& former : former_) {
    check_nothing_left(*former->device);
  }
  check_nothing_left(*device_);
}

void SimulatedDisk::check_nothing_left(const MultipathDevice& device) {
  const MultipathSnapshot snapshot = device.snapshot();
  if (snapshot.queued != 0 || snapshot.held != 0 || snapshot.in_flight != 0 || open_ != 0) {
    fail(fmt::format("after closing {} queued, {} held, {} in flight, {} open", snapshot.queued,
                     snapshot.held, snapshot.in_flight, open_));
  }
}

void SimulatedDisk::fail(std::string what) {
  world_.fail(fmt::format("disk {}: {}", lun_number_, std::move(what)));
}

}  // namespace iscsi_blkback
