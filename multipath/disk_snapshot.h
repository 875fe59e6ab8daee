// DiskParts: the parts of a disk as a MultipathSnapshot shows them. Reactor thread.
#pragma once

#include <string>

#include "base/clock.h"
#include "multipath/disk_identity.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/groups/group_controller.h"
#include "multipath/groups/path_activator.h"
#include "multipath/multipath_snapshot.h"
#include "multipath/path/path_set.h"
#include "multipath/path_removals.h"
#include "multipath/requests/outage_watch.h"
#include "multipath/requests/request_queue.h"

namespace iscsi_blkback {

struct DiskParts {
  const std::string& alias;
  const PathSet& paths;
  const GroupController& groups;
  const PathActivator& activator;
  const DiskIdentity& disk;
  const LunTurn& turn;
  const WriteFence& fence;
  const RequestQueue& queue;
  const OutageWatch& outages;
  const PathRemovals& removals;
};

[[nodiscard]] MultipathSnapshot snapshot_of(const DiskParts& parts, TimePoint now);

}  // namespace iscsi_blkback
