// The system's look-ups: getaddrinfo and SendTargets discovery.
#include "multipath/attach/portal_resolver.h"

#include <memory>
#include <utility>

#include "base/log.h"
#include "initiator/discovery/discovery.h"
#include "initiator/login/resolve.h"

namespace iscsi_blkback {
namespace {

class SystemPortalDirectory final : public PortalResolver {
 public:
  // discoveries: by whom; null: each has an io_uring of its own.
  explicit SystemPortalDirectory(std::uint32_t rounds,
                                 std::unique_ptr<DiscoveryThread> discoveries = nullptr)
      : rounds_(rounds), discoveries_(std::move(discoveries)) {}
  Result<std::vector<SocketAddress>> resolve(const Portal& portal) override {
    return iscsi_blkback::resolve(portal.host, portal.port);
  }

  Result<std::vector<Portal>> discover(const Portal& at, const SessionOptions& session,
                                       const std::string& target_name) override {
    auto addresses = resolve(at);
    if (!addresses) {
      return tl::unexpected(addresses.error());
    }
    DiscoveryOptions options = discovery_options(session, std::move(*addresses), at.to_string());
    options.interface_binding = at.interface_binding;
    options.rounds = rounds_;
    auto discovery = discoveries_ != nullptr ? discoveries_->discover(std::move(options))
                                             : iscsi_blkback::discover(std::move(options));
    if (!discovery) {
      return tl::unexpected(discovery.error());
    }
    if (!discovery->left_out.empty()) {
      log_warning("discovery", "of what {} tells of targets are left out: {}", at.to_string(),
                  discovery->left_out);
    }
    std::vector<Portal> portals;
    for (DiscoveredTarget& target : discovery->targets) {
      if (!same_iscsi_name(target.name, target_name)) {
        continue;
      }
      for (DiscoveredPortal& found : target.portals) {
        Portal& portal = portals.emplace_back();
        portal.host = std::move(found.host);
        portal.port = found.port;
        portal.interface_binding = at.interface_binding;
        if (target.name != target_name) {
          portal.target_name = target.name;  // in its letters, which it may insist on
        }
      }
    }
    return portals;
  }

 private:
  std::uint32_t rounds_;
  std::unique_ptr<DiscoveryThread> discoveries_;
};

}  // namespace

PortalResolver& system_portal_resolver() {
  // Never destroyed: a worker may hang in the system's resolver when the process ends.
  static auto* const directory = new SystemPortalDirectory(1);
  return *directory;
}

Result<PortalResolver*> make_portal_resolver_with_its_ring() {
  auto discoveries = DiscoveryThread::create();
  if (!discoveries) {
    return tl::unexpected(discoveries.error());
  }
  return new SystemPortalDirectory(1, std::move(*discoveries));
}

PortalResolver& retrying_portal_resolver() {
  static auto* const directory = new SystemPortalDirectory(kDiscoveryRounds);
  return *directory;
}

}  // namespace iscsi_blkback
