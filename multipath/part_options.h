// PartOptions: what the parts of a MultipathDevice are told of its options. Pure functions.
#pragma once

#include "multipath/capacity_watch.h"
#include "multipath/disk_identity.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/groups/group_controller.h"
#include "multipath/multipath_options.h"
#include "multipath/path/path.h"
#include "multipath/requests/request_queue.h"

namespace iscsi_blkback {

[[nodiscard]] Path::Options path_options(const MultipathOptions& options, PathCheckerKind checker,
                                         RegistrationTable& registrations);
[[nodiscard]] GroupController::Options group_options(const MultipathOptions& options);
[[nodiscard]] DiskIdentity::Wanted wanted_identity(const MultipathOptions& options);
[[nodiscard]] LunTurn::Options turn_options(const MultipathOptions& options);
[[nodiscard]] WriteFence::Options fence_options(const MultipathOptions& options);
[[nodiscard]] RequestQueue::Options queue_options(const MultipathOptions& options);
[[nodiscard]] CapacityWatch::Options capacity_options(const MultipathOptions& options);

}  // namespace iscsi_blkback
