#include "multipath/part_options.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

// A path can lose no more than its queue before it comes up again; room for some of that.
constexpr std::size_t kUnfencedPerRequest = 4;

}  // namespace

Path::Options path_options(const MultipathOptions& options, PathCheckerKind checker,
                           RegistrationTable& registrations) {
  return {.checker = {checker, options.polling_interval, options.max_polling_interval,
                      options.checker_timeout},
          .marginal = options.marginal,
          .host_key = options.reservation_key,
          .registrations = &registrations};
}

GroupController::Options group_options(const MultipathOptions& options) {
  return {.settings = options,
          .arrays = options.arrays,
          .path_weights = options.path_weights,
          .polling_interval = options.polling_interval,
          .max_polling_interval = options.max_polling_interval};
}

DiskIdentity::Wanted wanted_identity(const MultipathOptions& options) {
  return {.wwid = options.wwid, .same_lun = options.same_lun, .read_only = options.read_only};
}

LunTurn::Options turn_options(const MultipathOptions& options) {
  return {.directory = options.barrier_directory,
          .holder_name = options.holder_name.empty() ? options.alias : options.holder_name,
          .holder_domain = options.holder_domain,
          .shared = options.shared,
          .redirected_login_fences = options.redirected_login_fences,
          .quiesce_time = options.quiesce_time,
          .host_started_at = options.host_started_at};
}

WriteFence::Options fence_options(const MultipathOptions& options) {
  return {.lun_fence = {.preempts = options.reservation_key != 0,
                        .resets = options.exclusive_luns,
                        .settle_time = options.fence_settle_time,
                        .quiesce_time = options.quiesce_time},
          .exclusive = options.exclusive_luns,
          .shared = options.shared,
          .redirected_login_fences = options.redirected_login_fences,
          .most_writes = std::max<std::size_t>(options.max_requests, 1) * kUnfencedPerRequest};
}

RequestQueue::Options queue_options(const MultipathOptions& options) {
  return {.most_requests = options.max_requests,
          .holds_when_full = options.no_space == NoSpacePolicy::hold};
}

CapacityWatch::Options capacity_options(const MultipathOptions& options) {
  return {.grows = options.grows, .interval = options.capacity_polling_interval};
}

}  // namespace iscsi_blkback
