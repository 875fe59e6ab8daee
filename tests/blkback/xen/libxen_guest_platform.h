// The GuestPlatform of a Linux guest of Xen, by its devices: /dev/xen/gntalloc, evtchn and xenbus.
// Threads: run_beside() has one of its own.
#pragma once

#include <memory>
#include <string>

#include "tests/support/guest_platform.h"

namespace iscsi_blkback {

// Null: this is no Xen domain, or a device is missing; *why says which.
[[nodiscard]] std::unique_ptr<GuestPlatform> open_guest_platform(std::string* why);

}  // namespace iscsi_blkback
