// The status of a guest as the JSON line of the control socket; its layout stands in
// blkback/control/control_protocol.h. Pure.
#pragma once

#include <string>

#include "blkback/guest/guest_backend.h"

namespace iscsi_blkback {

[[nodiscard]] std::string guest_status_line(const GuestStatus& status);

}  // namespace iscsi_blkback
