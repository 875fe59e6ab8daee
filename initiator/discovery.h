// SendTargets discovery (RFC 7143 appendix C), through libiscsi. Blocks: never on a reactor's
// thread; several at once are fine.
//
// libiscsi writes to its socket with writev(): the process must ignore SIGPIPE.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/result.h"
#include "initiator/chap.h"
#include "initiator/target_address.h"

namespace iscsi_blkback {

using DiscoveredPortal = TargetAddress;

struct DiscoveredTarget {
  std::string name;
  std::vector<DiscoveredPortal> portals;  // those that the target tells; tgt: only the one asked
};

// Asks one portal for all its targets, within timeout. chap: check_chap_options() has accepted it;
// libiscsi knows MD5 only. Through the interface that binding means, by whichever of its parts; its
// source address as such libiscsi cannot use. The LIBISCSI_* variables of the environment, which
// would change what libiscsi does, are unset when a program with this in it starts.
[[nodiscard]] Result<std::vector<DiscoveredTarget>> discover(const SocketAddress& portal,
                                                             const std::string& initiator_name,
                                                             std::chrono::milliseconds timeout,
                                                             const ChapOptions& chap = {},
                                                             const InterfaceBinding& binding = {});

}  // namespace iscsi_blkback
