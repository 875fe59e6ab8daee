#include "bench/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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

ChildEnd wait_for_end(const ChildProcess& process) {
  ChildEnd end;
  std::array<char, 4096> piece{};
  for (ssize_t got = 0; (got = read(process.output.get(), piece.data(), piece.size())) > 0;) {
    end.output.append(piece.data(), static_cast<std::size_t>(got));
  }
  rusage usage{};
  wait4(process.id, &end.status, 0, &usage);
  end.cpu_seconds = cpu_seconds(usage);
  return end;
}

double cpu_seconds(const rusage& usage) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace iscsi_blkback
