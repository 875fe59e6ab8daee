// The process of one guest: serves all of that guest's disks that are ours, and ends when the last
// one has gone. Two threads: the reactor's (rings, paths, sessions) and the control thread (the
// caller's: xenstore, control socket), with a few short-lived workers for names and discovery.
#pragma once

#include "base/domain_id.h"
#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

// Returns success when the guest's last disk has been detached or the guest is gone, with every
// session logged out or dropped, nothing mapped and nothing bound; also at SIGTERM, which detaches
// nothing: the disks' nodes keep their state. An error is one sentence: no Xen, no permission on
// /dev/xen, no io_uring, or another process already serves this guest (ErrorCode::conflict). Call
// it from main(), before any other thread exists.
[[nodiscard]] Result<void> run_guest_process(const Configuration& configuration, DomainId domain);

}  // namespace iscsi_blkback
