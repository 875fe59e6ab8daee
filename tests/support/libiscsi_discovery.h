// SendTargets discovery through libiscsi: the second opinion of what a target's answer means.
// Blocks. CHAP is MD5 only. The LIBISCSI_* variables of the environment, which would change what
// libiscsi does, are unset when a program with this in it starts.
//
// libiscsi writes to its socket with writev(): the process must ignore SIGPIPE.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/result.h"
#include "initiator/discovery/send_targets.h"
#include "initiator/login/chap.h"

namespace iscsi_blkback {

[[nodiscard]] Result<std::vector<DiscoveredTarget>> libiscsi_discover(
    const SocketAddress& portal, const std::string& initiator_name,
    std::chrono::milliseconds timeout, const ChapOptions& chap = {});

}  // namespace iscsi_blkback
