// The sandbox of a guest's process: what it can still do once it has opened what it needs. A guest that takes
// it over by its ring, or a target by its answers, has then the descriptors that are open, the network, the
// files that anybody may read and those of the barriers. What is left is listed in iscsi-blkback(8). Before there are
// other threads, or on the control thread while these do not run yet.
#pragma once

#include <optional>

#include "base/privileges.h"
#include "base/result.h"
#include "base/syscall_filter.h"

namespace iscsi_blkback {

// The system calls of both threads, of the library's resolver and of libxen*, as they are made afterwards.
// process: whose threads may be sent signals: its own number.
[[nodiscard]] SyscallFilter guest_syscalls(pid_t process);

// For good. Before any other thread that matters exists; with the io_urings made and Xen's devices open.
// user: nothing: it stays who it is. The error is a sentence, and the process must not go on then.
[[nodiscard]] Result<void> enter_guest_sandbox(const std::optional<ProcessUser>& user);

// What this process makes from now on is the group's, too, to read and write.
[[nodiscard]] Result<void> share_new_files(gid_t group);

}  // namespace iscsi_blkback
