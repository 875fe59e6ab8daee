// The service: one per domain that serves disks. It watches the backend nodes of its domain and
// keeps one process (`iscsi-blkback --guest DOMID`) for each guest that has at least one disk of
// ours. It does no I/O itself: stopping or restarting it leaves the guests' processes serving, and
// a new service finds them by their lock files. Its one thread is a control thread.
#pragma once

#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

struct ServiceOptions {
  // The configuration file that the guests' processes are told (--config); empty: their default.
  // They are also told run_directory and log_level of the Configuration.
  std::string configuration_path;
};

// Runs until SIGTERM or SIGINT (returns success) or until it cannot go on: no Xen, no permission,
// no io_uring, another service is running. The error is one sentence for the log; nothing was
// started then. Call it from main(), before any other thread exists: it blocks the signals that it
// handles.
[[nodiscard]] Result<void> run_service(const Configuration& configuration,
                                       const ServiceOptions& options);

}  // namespace iscsi_blkback
