// DiskSteps: what is to be done for a disk before this turn of the reactor ends. A change is noted
// at once, in masks and lists, so that nothing goes to where it must not; what follows from it is
// only said to be due, by whichever part has noticed, and done once, in the order of DiskStep: no
// part needs to know what the others make of a change. Owned by MultipathDevice, told by its
// parts. Reactor thread.
//
// What becomes due for a later step is done in the same turn; for one that has had its time, in the
// next, which does not wait then.
#pragma once

#include <cstdint>
#include <optional>

#include "base/reactor.h"

namespace iscsi_blkback {

enum class DiskStep : std::uint8_t {
  follow_paths,     // paths have changed their states: groups, failback, ghosts, size, an outage
  activate,         // whether the array is to make a path usable
  follow_outage,    // whether what waits fails for want of a path
  look_at_others,   // what other disks of this host tell of the LUN has changed
  release_held,     // what requests are held for may have happened
  hedge,            // silent paths: what waits there is asked for once more
  pump,             // what waits for room may have some
  finish_removals,  // nothing may be left of a path that is being removed
  tell,             // a snapshot shows something else
  check_closed,     // the last one: the disk may be gone after it
};
inline constexpr DiskStep kLastDiskStep = DiskStep::check_closed;

struct DiskFacts {
  bool closing = false;
};

// Whether the step is of any use now.
[[nodiscard]] bool applies(DiskStep step, const DiskFacts& facts);
// The first step that is due and applies, behind `after` where that is given. due: bit i is step i.
[[nodiscard]] std::optional<DiskStep> next_step(std::uint32_t due, std::optional<DiskStep> after,
                                                const DiskFacts& facts);

class DiskSteps {
 public:
  // settle(owner): takes the steps, one after the other until there is none, and does them.
  DiskSteps(Reactor& reactor, Deferred::Callback settle, void* owner)
      : settle_(reactor, settle, owner) {}

  void due(DiskStep step);
  // Something has ended that the removal of a path, or the end of the disk, may have waited for.
  void due_to_end() {
    due(DiskStep::finish_removals);
    due(DiskStep::check_closed);
  }
  // Nothing is to be taken behind kLastDiskStep.
  [[nodiscard]] std::optional<DiskStep> take_next(const DiskFacts& facts);
  // Nothing is done any more, until something is due again.
  void cancel() {
    due_ = 0;
    settle_.cancel();
  }

 private:
  Deferred settle_;
  std::uint32_t due_ = 0;
  std::optional<DiskStep> current_;  // the one that was taken last, of those of this turn
};

}  // namespace iscsi_blkback
