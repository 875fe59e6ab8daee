// RuntimeOverrides: what an operator has asked of one disk while it is in use, on top of what its
// configuration and its disk line say; they hold until the guest's process ends. Belongs to the
// disk's DiskDevice, control thread.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "multipath/attach/disk_config.h"

namespace iscsi_blkback {

class RuntimeOverrides {
 public:
  // Paths that were removed and are remembered; the oldest is forgotten first.
  static constexpr std::size_t kMaxRemoved = 256;

  // Instead of what was set before; nullopt: as the configuration has it.
  void set_no_path_retry(std::optional<NoPathRetry> wait) { no_path_retry_ = wait; }
  void set_policies(const PathPolicySettings& changes) { overrule(changes, policies_); }
  void path_added(const ResolvedPortal& path);
  void path_removed(const ResolvedPortal& path);

  void apply(MultipathOptions& options) const;
  // The policies that apply() sets.
  [[nodiscard]] const PathPolicySettings& policies() const { return policies_; }
  // With those that were added and without those that were removed.
  void apply(std::vector<ResolvedPortal>& portals) const;

 private:
  std::optional<NoPathRetry> no_path_retry_;
  PathPolicySettings policies_;
  std::vector<ResolvedPortal> added_;
  std::vector<ResolvedPortal> removed_;
};

}  // namespace iscsi_blkback
