// PathChoice: which of a disk's paths an operator means. A value; any thread.
#pragma once

#include <string>

#include "multipath/attach/disk_config.h"

namespace iscsi_blkback {

// Which paths an operator means: those by this portal, through whatever interface.
struct PathChoice {
  Portal portal;
  std::string target_name;  // empty: the disk's, or with paths that exist, any

  [[nodiscard]] bool includes(const ResolvedPortal& path) const;
};

// What has to be looked up to add those paths to a disk of this configuration.
[[nodiscard]] DiskConfig config_for_paths(const DiskConfig& disk, const PathChoice& choice);

}  // namespace iscsi_blkback
