#include "bench/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "bench/core_pinning.h"

namespace iscsi_blkback {

Result<ChildProcess> start_child(int core, const std::function<void(int output)>& child) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return tl::unexpected(system_error("cannot make a pipe", errno));
  }
  UniqueFd output(ends[0]);
  const UniqueFd input(ends[1]);
  const pid_t process = fork();
  if (process < 0) {
    return tl::unexpected(system_error("cannot fork", errno));
  }
  if (process == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_to_core(core);
    child(input.get());
    _exit(1);
  }
  return ChildProcess{.id = process, .output = std::move(output)};
}

}  // namespace iscsi_blkback
