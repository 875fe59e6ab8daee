// BarrierSlot: what a slot of a BarrierFile says of its disk, read as what it may mean: another
// process may have written anything there, and may change it meanwhile. Owned by nobody: functions
// of the slot. Any thread; no system calls.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

enum class HolderUse : std::uint32_t {
  runs,
  suspended,
  ended,  // or the disk is being closed
  kept,   // no disk: its guest has another one soon
};

// A disk, as it enters.
struct BarrierHolder {
  std::string name;          // for others' messages: "xvda of guest 5"
  std::uint64_t vm = 0;      // see GuestNow
  std::uint32_t domain = 0;  // of the guest
  bool shared = false;
  Duration quiesce_time{};  // see MultipathOptions
};

[[nodiscard]] HolderUse use_of(barrier_layout::Slot& slot);
[[nodiscard]] bool is_shared(barrier_layout::Slot& slot);
[[nodiscard]] std::string holder_text(const barrier_layout::Slot& slot);

// A place in the line is the upper part of a turn.
[[nodiscard]] std::uint64_t place_of(std::uint64_t turn);
[[nodiscard]] bool may_have_an_heir(barrier_layout::Slot& slot);
[[nodiscard]] bool is_passed_on(barrier_layout::Slot& slot);

// Where its writes may still be executed.
[[nodiscard]] PathMask paths_of(barrier_layout::Slot& slot);
[[nodiscard]] bool is_harmless(barrier_layout::Slot& slot);
// Also when its disk has died, until somebody finds that it is over.
[[nodiscard]] bool concerns_others(barrier_layout::Slot& slot);

// Nobody holds the slot from here on. When its process was found dead first.
TimePoint note_death(barrier_layout::Slot& slot, TimePoint now);
[[nodiscard]] TimePoint harmless_at(barrier_layout::Slot& slot, TimePoint died_at);
[[nodiscard]] bool is_place_kept(barrier_layout::Slot& slot, TimePoint died_at, TimePoint now);
// Whether the dead disk's place is kept, or its writes may still be about.
[[nodiscard]] bool is_in_use_after_death(barrier_layout::Slot& slot, TimePoint now);
void set_free(barrier_layout::Slot& slot);

[[nodiscard]] TimePoint time_of(std::int64_t nanoseconds);

}  // namespace iscsi_blkback
