// The initiator's part of a session's identity. A value; any thread.
#pragma once

#include <array>
#include <cstdint>

namespace iscsi_blkback {

// RFC 7143 11.12.5; fixed for each path, so that a login after a failure reinstates the session and
// makes the target terminate the old one's tasks (6.3.5).
using Isid = std::array<std::uint8_t, 6>;

}  // namespace iscsi_blkback
