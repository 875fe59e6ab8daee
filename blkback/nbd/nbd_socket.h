// The unix socket at which a disk can be had by NBD. Any thread; blocks for the file system.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

// Bound and listening, so that clients wait there for a server (nbd_server.h), in the place of what was at
// path; mode 0600, non-blocking. The folder must exist. Errors: invalid_argument (libxl and QEMU would read
// the path as something else, or it is too long); the system call's.
[[nodiscard]] Result<UniqueFd> listen_nbd(const std::string& path);

}  // namespace iscsi_blkback
