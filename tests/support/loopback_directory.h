// LoopbackDirectory: every portal is at a port of the loopback address that nobody listens on.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "multipath/attach/portal_resolver.h"

namespace iscsi_blkback {

class LoopbackDirectory final : public PortalResolver {
 public:
  Result<std::vector<SocketAddress>> resolve(const Portal&) override {
    ++lookups;
    constexpr std::uint16_t kDeadPort = 1;  // tcpmux: nobody's any more
    return std::vector{SocketAddress::parse("127.0.0.1", kDeadPort).value()};
  }
  Result<std::vector<Portal>> discover(const Portal&, const SessionOptions&,
                                       const std::string&) override {
    return fail(ErrorCode::unavailable, "no discovery here");
  }

  std::atomic<int> lookups = 0;
};

}  // namespace iscsi_blkback
