// The status of a guest as the JSON line of the control socket; its layout stands in
// control_server.h. Pure.
#pragma once

#include <string>

#include "blkback/guest/guest_backend.h"

namespace iscsi_blkback {

[[nodiscard]] std::string guest_status_line(const GuestStatus& status);

}  // namespace iscsi_blkback
