#include "blkback/guest/runtime_overrides.h"

#include <algorithm>

#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {
namespace {

bool has_same_path(const std::vector<ResolvedPortal>& paths, const ResolvedPortal& path) {
  return std::any_of(paths.begin(), paths.end(),
                     [&](const ResolvedPortal& other) { return same_path(path, other); });
}

void erase_same_path(std::vector<ResolvedPortal>& paths, const ResolvedPortal& path) {
  std::erase_if(paths, [&](const ResolvedPortal& other) { return same_path(path, other); });
}

}  // namespace

void RuntimeOverrides::path_added(const ResolvedPortal& path) {
  erase_same_path(removed_, path);
  if (!has_same_path(added_, path)) {
    added_.push_back(path);
  }
}

void RuntimeOverrides::path_removed(const ResolvedPortal& path) {
  erase_same_path(added_, path);
  if (!has_same_path(removed_, path)) {
    if (removed_.size() == kMaxRemoved) {
      removed_.erase(removed_.begin());
    }
    removed_.push_back(path);
  }
}

void RuntimeOverrides::apply(MultipathOptions& options) const {
  if (no_path_retry_) {
    options.no_path_retry = *no_path_retry_;
  }
  overrule(policies_, options);
}

void RuntimeOverrides::apply(std::vector<ResolvedPortal>& portals) const {
  std::erase_if(portals, [&](const ResolvedPortal& path) { return has_same_path(removed_, path); });
  for (const ResolvedPortal& path : added_) {
    if (!has_same_path(portals, path) && portals.size() < kMaxPathsPerDisk) {
      portals.push_back(path);
    }
  }
}

}  // namespace iscsi_blkback
