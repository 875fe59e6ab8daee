// ControlRequest: what a client of a control socket asks for; the protocol is in control_server.h.
// Parsed by whoever handles the socket's requests, control thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

struct ControlRequest {
  std::string command;
  std::uint32_t device_id = 0;
  std::string setting;
  std::string value;
  std::string portal;
  std::string target;
};

// The error is the sentence for the refusal.
[[nodiscard]] Result<ControlRequest> parse_control_request(const std::string& line);

}  // namespace iscsi_blkback
