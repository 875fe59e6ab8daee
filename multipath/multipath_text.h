// The topology of a disk as text, in the layout of multipath -ll. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/printable_text.h"
#include "multipath/multipath_snapshot.h"

namespace iscsi_blkback {

// mpio (360a98000deadbeef) IET,VIRTUAL-DISK
// size=1.0G features='1 queue_if_no_path' hwhandler='0' wp=rw
// `-+- policy='round-robin 0' prio=1 status=active
//   |- 192.0.2.1:3260,eth1 lun 1 active ready  running
//   `- 192.0.2.2:3260      lun 1 failed faulty offline [connection refused]
//
// Where multipath -ll has H:C:I:L, device name and numbers, there are the portal, the interface
// when one is set, and the LUN. A path that is not up ends in the reason, in brackets. Words:
//   group    active (in use and able to carry I/O), enabled
//   path     active, failed, undef
//   checker  ready, ghost (until the array is told to serve the LUN there), faulty, i/o pending,
//            i/o timeout, disconnected (no such LUN there), quarantined
//   session  running (logged in), offline
// device_name: what stands where multipath -ll has dm-N, when not empty.
[[nodiscard]] PrintableLines render_topology(const MultipathSnapshot& snapshot,
                                             std::string_view device_name = {});

// What keeps the disk from being used, one sentence: another disk of this host uses the LUN, or why
// no path is up. Empty while a path is up or on its way.
[[nodiscard]] std::string unavailable_reason(const MultipathSnapshot& snapshot);
// The same where it has taken too long to wait for paths that are on their way: what they do.
[[nodiscard]] std::string describe_delay(const MultipathSnapshot& snapshot);

// "1.0G", "20G": as multipath -ll prints sizes.
[[nodiscard]] std::string render_size(std::uint64_t sector_count);

}  // namespace iscsi_blkback
