// SnapshotParts: what a MultipathSnapshot says of paths, groups and policies. Pure functions.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/clock.h"
#include "multipath/groups/group_controller.h"
#include "multipath/multipath_snapshot.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

// But for what only the device knows of it: on_its_way beyond the path's own, fenced_alone.
[[nodiscard]] PathSnapshot snapshot_of(const Path& path, const PathSet& paths,
                                       const GroupController& groups, TimePoint now);
void add_groups(MultipathSnapshot& snapshot, const GroupController& groups);
// multipathd's words: "queue", "fail", "30 sec".
[[nodiscard]] std::string no_path_retry_text(std::optional<std::chrono::milliseconds> wait);

}  // namespace iscsi_blkback
