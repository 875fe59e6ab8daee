// The helper of a guest's process: a process beside it that keeps root's rights and does the few things that
// take them, for this guest only, while the one with the rings and the sessions is in its sandbox
// (guest_sandbox.h). A child of it, from before that; it ends when the other end of its socket closes, however
// that comes, and does not react to the signals that end the service.
//
// What it does when it is asked, and nothing else:
//  - says what Xen says of the guest (libxenctrl, /dev/xen/privcmd), on a thread of its own, since xenstored may
//    hang meanwhile;
//  - passes messages on to xenstored that XenStoreGate lets through, by a socket of its own in the run directory,
//    which the user of the process may connect to (XENSTORED_PATH from now on);
//  - makes the process's lock file and control socket anew and the sockets of the guest's firmware, hands them over,
//    and removes them in the end.
// It reads nothing that a guest or a target wrote but the payload of these messages, which it does not look into
// beyond the path.
#pragma once

#include <memory>

#include "blkback/process/guest_doors.h"

namespace iscsi_blkback {

// Before any other thread that uses the log exists. The helper keeps none of the descriptors that this process has, its
// lock in particular. When it has gone, what is asked of it fails: Xen's state of the guest is in doubt then.
[[nodiscard]] Result<std::unique_ptr<GuestDoors>> start_guest_helper(const GuestPlace& place);

// Where it listens for libxenstore.
[[nodiscard]] std::string guest_xenstore_path(const std::string& run_directory, DomainId domain);

}  // namespace iscsi_blkback
