// Giving up what a process of root's may do, for good. Each thread has capabilities of its own: call these
// before there are others that matter.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

struct ProcessUser {
  uid_t user = 0;
  gid_t group = 0;
};

// Becomes the user, in one group only, without any capability, and without a way back: programs that are
// set-user-ID give none either (no_new_privs). Only root can; core dumps stay as they were allowed or
// forbidden (core_dumps.h). The error is a sentence, and some of it may be done then.
[[nodiscard]] Result<void> become_user(const ProcessUser& user);

// Keeps no capabilities but these (bits, 1 << CAP_...; as far as it has them), and none by way of a program.
[[nodiscard]] Result<void> keep_capabilities(std::uint64_t which);

// Those that nobody knows of in a process that was started with them: all but the standard streams and these.
void close_descriptors_but(std::vector<int> which);

}  // namespace iscsi_blkback
