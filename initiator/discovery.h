// SendTargets discovery (RFC 7143 appendix C), through libiscsi. Blocks: control thread only.
//
// libiscsi writes to its socket with writev(): the process must ignore SIGPIPE.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/result.h"

namespace iscsi_blkback {

struct DiscoveredPortal {
  std::string host;                        // a name or a numeric address, without brackets
  std::uint16_t port = 3260;
  std::uint16_t group_tag = 0;
};

struct DiscoveredTarget {
  std::string name;
  std::vector<DiscoveredPortal> portals;   // those that the target tells; tgt: only the one asked
};

// Asks one portal for all its targets, within timeout. Unsets the LIBISCSI_* variables of the
// environment first, which would change what libiscsi does.
[[nodiscard]] Result<std::vector<DiscoveredTarget>> discover(const SocketAddress& portal,
                                                             const std::string& initiator_name,
                                                             std::chrono::milliseconds timeout);

// "192.0.2.1:3260,1", "[2001:db8::1]:3260,1", "san.example,2": a TargetAddress (13.8).
[[nodiscard]] Result<DiscoveredPortal> parse_target_address(const std::string& text);

}  // namespace iscsi_blkback
