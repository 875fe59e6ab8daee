// DiskPlan: what a disk's target comes to with the operator's configuration: which settings hold,
// and where its portals are looked up; and, after resolve_disk(), everything that it takes to open
// the disk. plan_disk() is pure; resolve_disk() blocks (names, discovery) and belongs on a worker
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "blkback/configuration.h"
#include "blkback/disk_target.h"
#include "blkback/portal_directory.h"

namespace iscsi_blkback {

// What has to be looked up before the disk can be opened.
struct DiskPlan {
  std::string target_name;
  std::uint16_t lun = 0;
  std::vector<Portal> portals;  // empty: ask the discovery portals
  std::vector<Portal> discovery_portals;
  PortalOptions paths;
  SessionOptions session;  // what differs between paths is open
  MultipathOptions multipath;
};

// name: what the disk is called when the configuration has no alias for it ("xvda").
[[nodiscard]] Result<DiskPlan> plan_disk(const DiskTarget& target,
                                         const Configuration& configuration,
                                         const std::string& name, bool read_only);

// Where one path leads.
struct ResolvedPortal {
  Portal portal;
  SocketAddress address;
  std::uint16_t session_number = 0;  // of those to this portal through this interface
  std::string target_name = {};
};
// Whatever the portal is called.
[[nodiscard]] bool same_path(const ResolvedPortal& one, const ResolvedPortal& other);

// Everything that the I/O side needs to open the disk.
struct DiskSpecification {
  std::uint16_t lun = 0;
  SessionOptions session;  // with target_name
  MultipathOptions multipath;
  std::vector<ResolvedPortal> portals;  // at least one, at most kMaxPathsPerDisk
};

struct ResolvedDisk {
  DiskSpecification specification;
  std::string trouble;  // why some portals are missing: try again later; or empty
};

// Fails when not one portal can be used.
[[nodiscard]] Result<ResolvedDisk> resolve_disk(const DiskPlan& plan, PortalDirectory& directory);

}  // namespace iscsi_blkback
