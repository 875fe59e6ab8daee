#include "multipath/fencing/slot_claim.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace iscsi_blkback {

using barrier_layout::kMaxHeir;
using barrier_layout::kSlots;
using barrier_layout::Slot;

Result<std::size_t> take_slot(const BarrierFile& file, const BarrierHolder& holder) {
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (!file.try_lock_shared(index)) {
      continue;
    }
    Slot& slot = file.slot(index);
    // What a process that has died has left may still be about. Its slot is not even locked for a
    // moment: others would take the dead one for a living one.
    if (concerns_others(slot) || !file.try_lock(index)) {
      file.unlock(index);
      continue;
    }
    SharedField(slot.in_use).store(0);
    SharedField(slot.use).store(static_cast<std::uint32_t>(HolderUse::runs));
    SharedField(slot.vm).store(holder.vm);
    SharedField(slot.shared).store(holder.shared ? 1 : 0);
    slot.pid = ::getpid();
    slot.domain = holder.domain;
    SharedField(slot.turn).store(0);
    SharedField(slot.known_writer).store(0);
    SharedField(slot.passed_on).store(0);
    SharedField(slot.unfenced_until_ns).store(0);
    SharedField(slot.died_at_ns).store(0);
    SharedField(slot.quiesce_time_ns).store(holder.quiesce_time.count());
    set_text(slot.holder, holder.name);
    if (slot.nexuses_used < kMaxPaths && file.allocate_nexuses(index)) {
      slot.nexuses_used = kMaxPaths;
    }
    const std::uint32_t used = std::min(slot.nexuses_used, kMaxPaths);
    for (std::uint32_t path = 0; path < used; ++path) {
      SharedField(file.nexus(index, path).in_use).store(0);
    }
    return index;
  }
  return fail(
      ErrorCode::exhausted,
      fmt::format("{} disks of this host use the LUN, which are as many as can at once", kSlots));
}

Result<void> copy_slot(const BarrierFile& from_file, std::size_t from_index,
                       const BarrierFile& to_file, std::size_t to_index) {
  Slot& from = from_file.slot(from_index);
  Slot& to = to_file.slot(to_index);
  const std::uint32_t used = std::min(from.nexuses_used, kMaxPaths);
  const std::uint32_t room = std::min(to.nexuses_used, kMaxPaths);
  for (std::uint32_t path = 0; path < std::min(used, room); ++path) {
    to_file.nexus(to_index, path) = from_file.nexus(from_index, path);
  }
  const std::uint64_t turn = SharedField(from.turn).load();
  SharedField(to.shared).store(SharedField(from.shared).load());
  to.pid = from.pid;
  to.domain = from.domain;
  to.holder = from.holder;
  SharedField(to.use).store(SharedField(from.use).load());
  SharedField(to.vm).store(SharedField(from.vm).load());
  SharedField(to.suspended_at_ns).store(SharedField(from.suspended_at_ns).load());
  SharedField(to.known_writer).store(SharedField(from.known_writer).load());
  SharedField(to.passed_on).store(SharedField(from.passed_on).load());
  SharedField(to.turn).store(turn);
  SharedField(to.died_at_ns).store(SharedField(from.died_at_ns).load());
  SharedField(to.quiesce_time_ns).store(SharedField(from.quiesce_time_ns).load());
  SharedField(to.unfenced_until_ns).store(SharedField(from.unfenced_until_ns).load());
  SharedField(to.outstanding).store(SharedField(from.outstanding).load());
  SharedField(to.unfenced).store(SharedField(from.unfenced).load());
  SharedField(to.in_use).store(1);
  SharedField(to_file.header().last_place).raise(place_of(turn));
  SharedField(to_file.header().last_heir).raise(turn & kMaxHeir);
  if (room < used) {
    return fail(ErrorCode::exhausted,
                fmt::format("{} has no space for the sessions of its paths", to_file.path()));
  }
  return {};
}

void bring_dead(const BarrierFile& from, const BarrierFile& to, const BarrierHolder& holder,
                std::optional<std::size_t> but) {
  // Of its own: locks of one description do not exclude each other.
  const auto opened = BarrierFile::open_existing(to.path());
  if (!opened) {
    return;
  }
  const BarrierFile& file = *opened;
  for (std::size_t index = 0; index < kSlots; ++index) {
    Slot& dead = from.slot(index);
    if (index == but || !concerns_others(dead) || !from.try_lock_shared(index)) {
      continue;
    }
    from.unlock(index);  // nobody comes to this file any more
    bool there = false;
    for (std::size_t other = 0; other < kSlots; ++other) {
      Slot& slot = file.slot(other);
      there = there || (SharedField(slot.in_use).load() != 0 && slot.pid == dead.pid &&
                        SharedField(slot.turn).load() == SharedField(dead.turn).load());
    }
    if (there) {
      continue;
    }
    if (const auto taken = take_slot(file, holder)) {
      (void)copy_slot(from, index, file, *taken);
      file.unlock(*taken);
    }
  }
}

void bring_dead_of(const std::vector<BarrierFile>& former, const BarrierFile& to,
                   const BarrierHolder& holder) {
  for (const BarrierFile& from : former) {
    bring_dead(from, to, holder, std::nullopt);
  }
}

}  // namespace iscsi_blkback
