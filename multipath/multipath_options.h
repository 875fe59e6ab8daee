// MultipathOptions: what a MultipathDevice is told when it is made. A value; any thread. Ranges are checked
// where the configuration is read; contradictions between options are in attach/policy_contradiction.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "initiator/scsi/lun_names.h"
#include "multipath/groups/path_policies.h"
#include "multipath/groups/path_rules.h"
#include "multipath/path/marginal_path.h"

namespace iscsi_blkback {

// What becomes of writes that a thinly provisioned LUN refuses because it is full.
enum class NoSpacePolicy : std::uint8_t {
  hold,  // they wait, and are tried again until there is space
  fail,
};

// What of PathPolicySettings is not set, the LUN decides.
struct MultipathOptions : PathPolicySettings {
  std::string alias;
  // Only a LUN with this identity is ever used, as is_called() takes it (empty: one that reports
  // none). nullopt: the first path that answers decides which LUN the disk is.
  std::optional<std::string> wwid;
  // Only the LUN that has had these names, all of them as far as it still has them: of the disk in
  // a former life.
  std::optional<LunNames> same_lun;
  std::shared_ptr<const ArrayTable> arrays;
  // Shares of paths, see PathSelector::set_weight(); 1 where no rule fits.
  std::vector<PathRule> path_weights;
  // See PathCheckerOptions.
  std::chrono::milliseconds polling_interval{5000};
  std::chrono::milliseconds max_polling_interval{20000};
  std::chrono::milliseconds checker_timeout{5000};
  // A path that fails twice within the first is a last resort for the second, and each time that it
  // goes on failing for twice as long. 0 for the first: never.
  MarginalPathOptions marginal;
  // Whether the disk grows with its LUN: when all paths see the new size (auto_resize grow_only).
  bool grows = true;
  // How often the paths are asked for the LUN's size, since not every target tells; 0: never, but
  // for quarantined ones.
  std::chrono::milliseconds capacity_polling_interval{30000};
  NoSpacePolicy no_space = NoSpacePolicy::hold;
  // After a connection is gone, how long the target may still execute its writes when no fence has
  // succeeded; longer than the target's own connection timeout (LIO: 45 s).
  std::chrono::milliseconds quiesce_time{60000};
  // Nobody but this disk uses the LUN: a command that cannot be aborted, and lost writes, may be
  // ended by LOGICAL UNIT RESET, which ends everybody's commands there (SAM-5 7.7). A LUN is reset
  // only where all disks of this process at it say so.
  bool exclusive_luns = false;
  // The target's portals of one portal group know of each other's sessions, also where logins are
  // redirected between them, as RFC 7143 6.3.5 wants it; see login_nexus.h. Says all that
  // PortalGroupFences::yes says, and more.
  bool redirected_login_fences = false;
  // For how long after that what it carried may be on its way, before LOGICAL UNIT RESET (where
  // exclusive_luns allows it) or PREEMPT AND ABORT fences; see lun_fence.h. Not
  // shorter than quiesce_time: neither is used.
  std::chrono::milliseconds fence_settle_time{10000};
  // A number that no other host has, up to PrRegistration::kMaxHostKey: each path registers a key made of
  // this and its ISID, and takes it back when it ends; PREEMPT AND ABORT is used instead of a
  // reset. 0: none.
  std::uint64_t reservation_key = 0;
  // Where disks of this host tell each other of their writes (LunWriteBarrier). Empty: they do not.
  std::string barrier_directory;
  // When this host (or driver domain) has started, where it had not ended in order before that:
  // what it had sent may be executed until quiesce_time later, and nobody knows of it.
  std::optional<TimePoint> host_started_at;
  std::string holder_name;          // of this disk, in messages of others; empty: alias
  std::uint32_t holder_domain = 0;  // of its guest
  // Others may use the LUN for writing at the same time: disks of this host that are shared, too,
  // and other hosts. See rule 5 above. Not with exclusive_luns (policy_contradiction.h).
  bool shared = false;
  std::uint32_t max_requests = 1024;  // submitted and not completed at once
  bool read_only = false;
};

}  // namespace iscsi_blkback
