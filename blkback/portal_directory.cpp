// The system's look-ups: getaddrinfo and SendTargets discovery.
#include "blkback/portal_directory.h"

#include <utility>

#include "initiator/discovery.h"
#include "initiator/resolve.h"

namespace iscsi_blkback {
namespace {

class SystemPortalDirectory final : public PortalDirectory {
 public:
  Result<SocketAddress> resolve(const Portal& portal) override {
    auto addresses = iscsi_blkback::resolve(portal.host, portal.port);
    if (!addresses) {
      return tl::unexpected(addresses.error());
    }
    return addresses->front();  // the resolver's first choice (RFC 6724)
  }

  Result<std::vector<Portal>> discover(const Portal& at, const SessionOptions& session,
                                       const std::string& target_name) override {
    auto address = resolve(at);
    if (!address) {
      return tl::unexpected(address.error());
    }
    auto targets = iscsi_blkback::discover(*address, session.initiator_name, session.login_timeout,
                                           session.discovery_chap, at.interface_binding);
    if (!targets) {
      return tl::unexpected(targets.error());
    }
    std::vector<Portal> portals;
    for (DiscoveredTarget& target : *targets) {
      if (target.name != target_name) {
        continue;
      }
      for (DiscoveredPortal& found : target.portals) {
        Portal& portal = portals.emplace_back();
        portal.host = std::move(found.host);
        portal.port = found.port;
        portal.interface_binding = at.interface_binding;
      }
    }
    return portals;
  }
};

}  // namespace

PortalDirectory& system_portal_directory() {
  // Never destroyed: a worker may hang in the system's resolver when the process ends.
  static auto* const directory = new SystemPortalDirectory;
  return *directory;
}

}  // namespace iscsi_blkback
