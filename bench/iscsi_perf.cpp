#include "bench/iscsi_perf.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// The number behind the last "iops average "; 0 when there is none.
double last_average(std::string_view output) {
  constexpr std::string_view kMark = "iops average ";
  const std::size_t at = output.rfind(kMark);
  return at == std::string_view::npos
             ? 0
             : std::strtod(std::string(output.substr(at + kMark.size(), 20)).c_str(), nullptr);
}

Result<IscsiPerfResult> run_once(const std::string& url, std::uint32_t io_bytes,
                                 std::uint32_t depth, std::chrono::milliseconds duration) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return tl::unexpected(system_error("cannot make a pipe", errno));
  }
  const UniqueFd output(ends[0]);
  UniqueFd input(ends[1]);
  const pid_t process = ::fork();
  if (process < 0) {
    return tl::unexpected(system_error("cannot fork", errno));
  }
  if (process == 0) {
    ::dup2(input.get(), 1);
    ::dup2(input.get(), 2);
    ::execlp("iscsi-perf", "iscsi-perf", "-i", "iqn.2026-01.local.iscsi-blkback:perf", "-r", "-b",
             std::to_string(io_bytes / 512).c_str(), "-m", std::to_string(depth).c_str(),
             url.c_str(), nullptr);
    ::_exit(127);
  }
  input.reset();
  std::this_thread::sleep_for(duration);
  ::kill(process, SIGINT);
  std::string text;
  std::array<char, 4096> piece{};
  for (ssize_t got = 0; (got = ::read(output.get(), piece.data(), piece.size())) > 0;) {
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  int status = 0;
  rusage usage{};
  ::wait4(process, &status, 0, &usage);

  IscsiPerfResult result;
  result.ios_per_second = last_average(text);
  if (result.ios_per_second <= 0) {
    return fail(ErrorCode::unavailable,
                "iscsi-perf says no rate; is the package libiscsi-bin installed?");
  }
  const double ios = result.ios_per_second * std::chrono::duration<double>(duration).count();
  result.cpu_us_per_io = (seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime)) * 1e6 / ios;
  return result;
}

}  // namespace

Result<IscsiPerfResult> run_iscsi_perf(const std::string& url, std::uint32_t io_bytes,
                                       std::uint32_t depth, std::chrono::milliseconds duration) {
  // It can only be asked for its rate by being ended, perhaps before it has told one.
  constexpr std::array<std::chrono::milliseconds, 2> kLeast = {std::chrono::milliseconds(1500),
                                                               std::chrono::milliseconds(5000)};
  auto result = run_once(url, io_bytes, depth, std::max(duration, kLeast[0]));
  if (!result) {
    result = run_once(url, io_bytes, depth, std::max(duration, kLeast[1]));
  }
  return result;
}

}  // namespace iscsi_blkback
