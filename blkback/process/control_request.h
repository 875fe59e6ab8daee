// The door of the control sockets: what a line asks for, checked; the protocol is in
// blkback/control/control_protocol.h. Pure. Errors are the sentences for the refusals.
#pragma once

#include <string>
#include <variant>

#include "base/result.h"
#include "blkback/guest/disk_change.h"

namespace iscsi_blkback {

struct StatusRequest {};

// Of a guest's process.
using GuestRequest = std::variant<StatusRequest, DiskChange>;
[[nodiscard]] Result<GuestRequest> parse_guest_request(const std::string& line);

// Of the service.
[[nodiscard]] Result<StatusRequest> parse_service_request(const std::string& line);

}  // namespace iscsi_blkback
