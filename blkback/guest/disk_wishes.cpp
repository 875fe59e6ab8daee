#include "blkback/guest/disk_wishes.h"

#include <fmt/format.h>

#include <algorithm>

#include "initiator/login/login_text.h"
#include "multipath/attach/disk_target.h"

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

Result<PathChoice> parse_path_choice(const ControlRequest& request) {
  PathChoice choice;
  if (request.portal.empty()) {
    return fail(ErrorCode::invalid_argument, fmt::format("{} names no portal", request.command));
  }
  auto portal = parse_portal(request.portal);
  if (!portal) {
    return tl::unexpected(portal.error());
  }
  choice.portal = std::move(*portal);
  if (!request.target.empty()) {
    if (auto name = check_iscsi_name("the target name", request.target); !name) {
      return tl::unexpected(name.error());
    }
    choice.target_name = request.target;
  }
  return choice;
}

Result<PathPolicySettings> parse_policy_change(const ControlRequest& request) {
  PathPolicySettings changes;
  if (request.setting == "path_selector") {
    auto selector = parse_path_selector(request.value);
    if (!selector) {
      return tl::unexpected(selector.error());
    }
    changes.path_selector = *selector;
  } else if (request.setting == "path_grouping_policy") {
    auto policy = parse_path_grouping_policy(request.value);
    if (!policy) {
      return tl::unexpected(policy.error());
    }
    changes.path_grouping_policy = *policy;
  } else {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} cannot be changed while a disk is in use; no_path_retry, "
                            "path_selector and path_grouping_policy can",
                            request.setting));
  }
  return changes;
}

void DiskWishes::path_added(const ResolvedPortal& path) {
  erase_same_path(removed_, path);
  if (!has_same_path(added_, path)) {
    added_.push_back(path);
  }
}

void DiskWishes::path_removed(const ResolvedPortal& path) {
  erase_same_path(added_, path);
  if (!has_same_path(removed_, path)) {
    if (removed_.size() == kMaxRemoved) {
      removed_.erase(removed_.begin());
    }
    removed_.push_back(path);
  }
}

void DiskWishes::apply(MultipathOptions& options) const {
  if (no_path_retry_) {
    options.no_path_retry = *no_path_retry_;
  }
  overrule(policies_, options);
}

void DiskWishes::note_places(SettingPlaces& places) const {
  constexpr const char* kEarlier = "an earlier command";
  if (policies_.path_selector) {
    places.insert_or_assign("path_selector", kEarlier);
  }
  if (policies_.path_grouping_policy) {
    places.insert_or_assign("path_grouping_policy", kEarlier);
  }
}

void DiskWishes::apply(std::vector<ResolvedPortal>& portals) const {
  std::erase_if(portals, [&](const ResolvedPortal& path) { return has_same_path(removed_, path); });
  for (const ResolvedPortal& path : added_) {
    if (!has_same_path(portals, path) && portals.size() < kMaxPathsPerDisk) {
      portals.push_back(path);
    }
  }
}

}  // namespace iscsi_blkback
