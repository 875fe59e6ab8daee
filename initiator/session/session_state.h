// The states of a session (RFC 7143 8.3), with those of its connection. Values; any thread.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

enum class SessionState : std::uint8_t {
  free,  // not started, or stopped
  connecting,
  in_login,
  logged_in,
  in_logout,
  cleanup_wait,    // failed; the kernel still holds something of the connection
  transport_wait,  // failed; waiting for the next try
};

[[nodiscard]] const char* to_string(SessionState state);

}  // namespace iscsi_blkback
