// DiskChange: what an operator asks of one disk while it is in use, checked as far as that goes
// without the disk. Made of a control socket's line (control_request.h), carried out by the disk.
// A value; any thread.
#pragma once

#include <cstdint>
#include <variant>

#include "multipath/attach/disk_url.h"
#include "multipath/attach/path_choice.h"
#include "multipath/groups/path_policies.h"

namespace iscsi_blkback {

struct SetNoPathRetry {
  WrittenNoPathRetry wait;
};
// As the configuration and the disk line have it.
struct RestoreNoPathRetry {};
struct SetPolicies {
  PathPolicySettings policies;  // path_selector or path_grouping_policy
};
struct AddPath {
  PathChoice path;
};
struct RemovePath {
  PathChoice path;
};

struct DiskChange {
  using What = std::variant<SetNoPathRetry, RestoreNoPathRetry, SetPolicies, AddPath, RemovePath>;

  std::uint32_t device_id = 0;
  What what;
};

}  // namespace iscsi_blkback
