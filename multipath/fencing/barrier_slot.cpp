#include "multipath/fencing/barrier_slot.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

using barrier_layout::kElsewhere;
using barrier_layout::kHeirBits;
using barrier_layout::Slot;

namespace {

Duration quiesce_time_of(Slot& slot) {
  return std::clamp(Duration(SharedField(slot.quiesce_time_ns).load()), Duration(0),
                    barrier_layout::kLongestQuiesceTime);
}

}  // namespace

TimePoint time_of(std::int64_t nanoseconds) {
  return TimePoint(std::chrono::nanoseconds(nanoseconds));
}

HolderUse use_of(Slot& slot) {
  return static_cast<HolderUse>(SharedField(slot.use).load());
}

bool is_shared(Slot& slot) {
  return SharedField(slot.shared).load() != 0;
}

std::string holder_text(const Slot& slot) {
  return fmt::format("{} (process {})", text_of(slot.holder), slot.pid);
}

std::uint64_t place_of(std::uint64_t turn) {
  return turn >> kHeirBits;
}

bool may_have_an_heir(Slot& slot) {
  const HolderUse use = use_of(slot);
  return use == HolderUse::kept || use == HolderUse::suspended;
}

bool is_passed_on(Slot& slot) {
  return SharedField(slot.passed_on).load() != 0;
}

// In this order: what is lost is unfenced before it is no longer outstanding.
PathMask paths_of(Slot& slot) {
  const PathMask outstanding = SharedField(slot.outstanding).load();
  return outstanding | (SharedField(slot.unfenced).load() & ~kElsewhere);
}

bool is_harmless(Slot& slot) {
  return SharedField(slot.outstanding).load() == 0 && SharedField(slot.unfenced).load() == 0;
}

bool concerns_others(Slot& slot) {
  return SharedField(slot.in_use).load() != 0 && (!is_harmless(slot) || may_have_an_heir(slot));
}

// The first who finds out decides. What was noted before the host started anew counts in another
// time, and may lie in the future of this one.
TimePoint note_death(Slot& slot, TimePoint now) {
  const SharedField died_at(slot.died_at_ns);
  const std::int64_t now_ns = now.time_since_epoch().count();
  const std::int64_t noted = died_at.load();
  if (noted == 0 || noted > now_ns) {
    (void)died_at.replace(noted, now_ns);
  }
  return time_of(died_at.load());
}

// Whatever was lost, was lost before.
TimePoint harmless_at(Slot& slot, TimePoint died_at) {
  const TimePoint last = died_at + quiesce_time_of(slot);
  return SharedField(slot.outstanding).load() != 0
             ? last
             : std::min(last, time_of(SharedField(slot.unfenced_until_ns).load()));
}

bool is_place_kept(Slot& slot, TimePoint died_at, TimePoint now) {
  return may_have_an_heir(slot) && !is_passed_on(slot) && now < died_at + quiesce_time_of(slot);
}

bool is_in_use_after_death(Slot& slot, TimePoint now) {
  const TimePoint died_at = note_death(slot, now);
  return is_place_kept(slot, died_at, now) ||
         (!is_harmless(slot) && now < harmless_at(slot, died_at));
}

void set_free(Slot& slot) {
  SharedField(slot.outstanding).store(0);
  SharedField(slot.unfenced).store(0);
  SharedField(slot.in_use).store(0);
}

}  // namespace iscsi_blkback
