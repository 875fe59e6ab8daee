// PortalResolver: the look-ups behind a disk's portals that block: names and SendTargets
// discovery. Any thread, several at once. Errors are sentences about the portal, with the code of what failed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

class PortalResolver {
 public:
  virtual ~PortalResolver() = default;
  // At least one, the first choice first.
  [[nodiscard]] virtual Result<std::vector<SocketAddress>> resolve(const Portal& portal) = 0;
  // Portals of the target as SendTargets on this portal tells them.
  [[nodiscard]] virtual Result<std::vector<Portal>> discover(const Portal& at,
                                                             const SessionOptions& session,
                                                             const std::string& target_name) = 0;
};

// The real one: the system's resolver and SendTargets discovery.
[[nodiscard]] PortalResolver& system_portal_resolver();
// The same for who asks once only: discovery that is refused is tried a second and a third time.
[[nodiscard]] PortalResolver& retrying_portal_resolver();
inline constexpr std::uint32_t kDiscoveryRounds = 3;
// The system's for a process that may not make an io_uring any more later (DiscoveryThread): made before. Never
// destroyed, as the others are not. Errors: those of UringReactor::create().
[[nodiscard]] Result<PortalResolver*> make_portal_resolver_with_its_ring();

}  // namespace iscsi_blkback
