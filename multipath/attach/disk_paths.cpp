#include "multipath/attach/disk_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

Result<void> DiskPaths::add(const ResolvedPortal& where) {
  const std::string portal = where.portal.to_string();
  for (const DiskPath& way : disk_paths_) {
    if (same_path(way.where, where)) {
      return fail(ErrorCode::conflict,
                  fmt::format("the path by {} {}", portal,
                              way.leaving ? "is still being removed: its last requests or their "
                                            "fence are waited for"
                                          : "is there already"));
    }
  }
  if (auto room = device_.has_room(); !room) {
    return room;
  }
  SessionOptions options = session_;
  options.target_name = where.target_name;
  options.portal = where.address;
  options.other_addresses = where.other_addresses;
  options.portal_name = portal;
  options.interface_binding = where.portal.interface_binding;
  options.session_number = where.session_number;
  if (where.session_number != 0) {
    options.portal_name += fmt::format("#{}", where.session_number + 1);
  }
  auto session = pool_.acquire(options, variant_);
  if (!session) {
    return tl::unexpected(session.error());
  }
  if (auto added = device_.add_path(**session, lun_, options.portal_name); !added) {
    pool_.release(**session);
    return added;
  }
  disk_paths_.push_back({*session, where});
  return {};
}

Result<void> DiskPaths::add_all(const std::vector<ResolvedPortal>& portals) {
  Result<void> refused;
  bool any = false;
  for (const ResolvedPortal& where : portals) {
    if (auto added = add(where)) {
      any = true;
    } else if (refused) {
      refused = std::move(added);
    }
  }
  return any ? Result<void>() : refused;
}

Result<std::vector<ResolvedPortal>> DiskPaths::remove(const PathChoice& choice) {
  std::vector<DiskPath*> chosen;
  std::size_t others = 0;
  for (DiskPath& way : disk_paths_) {
    if (way.leaving) {
      continue;
    }
    if (choice.includes(way.where)) {
      chosen.push_back(&way);
    } else {
      ++others;
    }
  }
  const std::string portal = choice.portal.to_string();
  if (chosen.empty()) {
    return fail(ErrorCode::not_found, fmt::format("the disk has no path by {}", portal));
  }
  if (others == 0) {
    return fail(ErrorCode::conflict,
                fmt::format("the disk has no other path than by {}: add one first, or detach the "
                            "disk",
                            portal));
  }
  std::vector<ResolvedPortal> removed;
  for (DiskPath* way : chosen) {
    if (auto begun = device_.remove_path(*way->session, lun_); !begun) {
      return tl::unexpected(begun.error());
    }
    way->leaving = true;
    removed.push_back(way->where);
  }
  return removed;
}

void DiskPaths::let_go(Session& session) {
  std::erase_if(disk_paths_, [&](const DiskPath& way) { return way.session == &session; });
  pool_.release(session);
}

void DiskPaths::abort_outstanding() {
  for (const DiskPath& way : disk_paths_) {
    pool_.abort_outstanding(*way.session);
  }
}

std::vector<Session*> DiskPaths::sessions() const {
  std::vector<Session*> sessions;
  for (const DiskPath& way : disk_paths_) {
    sessions.push_back(way.session);
  }
  return sessions;
}

}  // namespace iscsi_blkback
