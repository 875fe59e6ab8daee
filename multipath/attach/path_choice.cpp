#include "multipath/attach/path_choice.h"

#include <algorithm>

#include "base/ascii_case.h"
#include "initiator/login/login_text.h"

namespace iscsi_blkback {

bool PathChoice::includes(const ResolvedPortal& path) const {
  if (!target_name.empty() && !same_iscsi_name(target_name, path.target_name)) {
    return false;
  }
  if (equal_text(path.portal.host, portal.host) && path.portal.port == portal.port) {
    return true;
  }
  const auto address = SocketAddress::parse(portal.host, portal.port);
  return address && (*address == path.address ||
                     std::find(path.other_addresses.begin(), path.other_addresses.end(),
                               *address) != path.other_addresses.end());
}

DiskConfig config_for_paths(const DiskConfig& disk, const PathChoice& choice) {
  DiskConfig config = disk;
  config.portals = {choice.portal};
  config.discovery_portals.clear();
  config.other_target_names.clear();
  if (!choice.target_name.empty()) {
    config.target_name = config.session.target_name = choice.target_name;
  }
  return config;
}

}  // namespace iscsi_blkback
