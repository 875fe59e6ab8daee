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

}  // namespace iscsi_blkback
