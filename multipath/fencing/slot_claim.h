// SlotClaim: how a disk comes to a slot of a BarrierFile: a free one, whose lock it gets; and how
// what a slot says is brought to another file of the LUN. Functions of the files, of which the
// caller has the folder locked. Any thread; system calls that do not wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_slot.h"

namespace iscsi_blkback {

// A slot of that file, locked and empty, and not in use yet, with room for the nexuses of all paths
// where there is space. The error, a sentence: all are taken.
[[nodiscard]] Result<std::size_t> take_slot(const BarrierFile& file, const BarrierHolder& holder);
// To a slot that was taken; memory alone. The error: without all the nexuses, for want of space.
[[nodiscard]] Result<void> copy_slot(const BarrierFile& from_file, std::size_t from_index,
                                     const BarrierFile& to_file, std::size_t to_index);
// From a file where nobody comes to any more: those that have died there, and that nobody else has
// brought. They stay there for disks that have not come yet. but: the disk's own slot there.
void bring_dead(const BarrierFile& from, const BarrierFile& to, const BarrierHolder& holder,
                std::optional<std::size_t> but);
void bring_dead_of(const std::vector<BarrierFile>& former, const BarrierFile& to,
                   const BarrierHolder& holder);

}  // namespace iscsi_blkback
