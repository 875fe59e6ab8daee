#include "multipath/fencing/place_in_line.h"

#include <optional>

namespace iscsi_blkback {

using barrier_layout::kHeirBits;
using barrier_layout::kMaxHeir;
using barrier_layout::kSlots;
using barrier_layout::Slot;

namespace {

// A process notices within a second that its guest is suspended; the guest is there again, at the
// place where it is moved to, some 100 ms after the suspend.
constexpr Duration kNoticeTime = std::chrono::seconds(2);

}  // namespace

// This disk is seen by now, with a lower turn than it gets here. So of two that come at the same
// time, the later one sees the earlier one there, whatever it sees of its turn.
void PlaceInLine::come_after_all_others(TimePoint now) const {
  const auto at_least = static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kHeirBits;
  SharedField(own().turn).store(SharedField(file_.header().last_place).next(at_least) << kHeirBits);
  file_.note_change();
}

void PlaceInLine::take_next_heirs_turn(std::uint64_t place, TimePoint now) const {
  const std::uint64_t heir = SharedField(file_.header().last_heir).add(1) + 1;
  if (heir > kMaxHeir) {
    come_after_all_others(now);
    return;
  }
  SharedField(own().turn).store(place << kHeirBits | heir);
  file_.note_change();
}

bool PlaceInLine::is_heir_of(Slot& slot) const {
  const std::uint64_t own_turn = SharedField(own().turn).load();
  const std::uint64_t turn = SharedField(slot.turn).load();
  return place_of(turn) == place_of(own_turn) && turn < own_turn;
}

bool PlaceInLine::comes_first(Slot& slot) const {
  return SharedField(slot.turn).load() < SharedField(own().turn).load() &&
         (!is_shared(slot) || !is_shared(own()));
}

// Whether a disk has come that may have had the LUN since this one's guest was suspended.
bool PlaceInLine::has_an_heir() const {
  const std::uint64_t turn = SharedField(own().turn).load();
  for (std::size_t index = 0; index < kSlots; ++index) {
    Slot& slot = file_.slot(index);
    const std::uint64_t other = SharedField(slot.turn).load();
    if (SharedField(slot.in_use).load() != 0 && place_of(other) == place_of(turn) && other > turn) {
      return true;
    }
  }
  return false;
}

void PlaceInLine::pass_on_former_places() const {
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (Slot& slot = file_.slot(index);
        index != slot_ && SharedField(slot.in_use).load() != 0 && is_heir_of(slot)) {
      SharedField(slot.passed_on).store(1);
    }
  }
}

// The guest is moved from a disk where it is suspended to this one, which has come since.
void PlaceInLine::inherit_place(TimePoint now) const {
  if (use_of(own()) != HolderUse::runs) {
    return;
  }
  // The first place of the guest's, and whoever has had that last.
  std::optional<std::size_t> from;
  std::uint64_t turn = 0;
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (!is_moved_from(index, now)) {
      continue;
    }
    const std::uint64_t other = SharedField(file_.slot(index).turn).load();
    if (!from || place_of(other) < place_of(turn) ||
        (place_of(other) == place_of(turn) && other > turn)) {
      from = index;
      turn = other;
    }
  }
  if (!from) {
    return;
  }
  take_next_heirs_turn(place_of(turn), now);
  // Where it has been resumed or has ended at the same time, others may not have seen that this one
  // comes before them.
  Slot& slot = file_.slot(*from);
  if (!may_have_an_heir(slot)) {
    come_after_all_others(now);
    return;
  }
  if (!is_shared(own())) {
    // What its guest knew there.
    SharedField(own().known_writer).store(SharedField(slot.known_writer).load());
  }
  if (is_harmless(slot) && file_.try_lock_shared(*from)) {
    set_free(slot);  // the place is taken
    file_.unlock(*from);
  }
}

// Whoever has no UUID is known by the domain, but for the source of a move, which has another one.
bool PlaceInLine::is_moved_from(std::size_t index, TimePoint now) const {
  Slot& slot = file_.slot(index);
  const bool known = slot.domain == own().domain || SharedField(own().vm).load() != 0;
  if (index == slot_ || SharedField(slot.in_use).load() == 0 || !may_have_an_heir(slot) ||
      is_passed_on(slot) || SharedField(slot.vm).load() != SharedField(own().vm).load() ||
      is_shared(slot) != is_shared(own()) ||
      place_of(SharedField(slot.turn).load()) >= place_of(SharedField(own().turn).load()) ||
      entered_at_ + kNoticeTime < time_of(SharedField(slot.suspended_at_ns).load())) {
    return false;
  }
  if (!file_.try_lock_shared(index)) {
    return known || use_of(slot) == HolderUse::suspended;
  }
  // Nobody else may be about to free the slot.
  constexpr Duration kMargin = std::chrono::seconds(1);
  const bool kept = known && is_place_kept(slot, note_death(slot, now), now + kMargin);
  file_.unlock(index);
  return kept;
}

}  // namespace iscsi_blkback
