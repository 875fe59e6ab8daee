// A process of its own for one client of a benchmark, on one core, with a pipe back to its parent.
// It ends with its parent; the parent waits for it.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

struct ChildProcess {
  pid_t id = -1;
  UniqueFd output;  // what it writes; at its end when the child has ended
};

// child: called in the new process with the other end of output; a process whose child returns ends
// with status 1. core: negative for any.
[[nodiscard]] Result<ChildProcess> start_child(int core,
                                               const std::function<void(int output)>& child);

struct ChildEnd {
  int status = 0;  // waitpid()'s
  double cpu_seconds = 0;
  std::string output;
};
// Reads all of its output, until it ends.
[[nodiscard]] ChildEnd wait_for_end(const ChildProcess& process);

// User and system time.
[[nodiscard]] double cpu_seconds(const rusage& usage);

}  // namespace iscsi_blkback
