// PlaceInLine: the order of the disks at one LUN, as a disk's slot has it: which of them came
// first, and which has taken the place of another one whose guest it goes on with (its heir). A view
// of the file and the disk's slot in it; made for a call. Any thread that has the slot; beside what
// is mapped, locks that do not wait.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_slot.h"

namespace iscsi_blkback {

class PlaceInLine {
 public:
  // The file outlives it. entered_at: when the disk did.
  PlaceInLine(const BarrierFile& file, std::size_t slot, TimePoint entered_at)
      : file_(file), slot_(slot), entered_at_(entered_at) {}

  void come_after_all_others(TimePoint now) const;
  void take_next_heirs_turn(std::uint64_t place, TimePoint now) const;
  void inherit_place(TimePoint now) const;

  // The other one comes before this disk, and has the LUN to itself.
  [[nodiscard]] bool comes_first(barrier_layout::Slot& slot) const;
  // This disk has the place that the other one had.
  [[nodiscard]] bool is_heir_of(barrier_layout::Slot& slot) const;
  [[nodiscard]] bool has_an_heir() const;
  // This disk has written: those whose heir it is do not get their place back.
  void pass_on_former_places() const;

 private:
  [[nodiscard]] barrier_layout::Slot& own() const { return file_.slot(slot_); }
  [[nodiscard]] bool is_moved_from(std::size_t index, TimePoint now) const;

  const BarrierFile& file_;
  const std::size_t slot_;
  const TimePoint entered_at_;
};

}  // namespace iscsi_blkback
