#include "bench/iscsi_perf.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "bench/child_process.h"

namespace iscsi_blkback {
namespace {

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
  const auto process = start_child(-1, [&](int output) {
    ::dup2(output, 1);
    ::dup2(output, 2);
    ::execlp("iscsi-perf", "iscsi-perf", "-i", "iqn.2026-01.local.iscsi-blkback:perf", "-r", "-b",
             std::to_string(io_bytes / 512).c_str(), "-m", std::to_string(depth).c_str(),
             url.c_str(), nullptr);
    ::_exit(127);
  });
  if (!process) {
    return tl::unexpected(process.error());
  }
  std::this_thread::sleep_for(duration);
  ::kill(process->id, SIGINT);
  const ChildEnd end = wait_for_end(*process);

  IscsiPerfResult result;
  result.ios_per_second = last_average(end.output);
  if (result.ios_per_second <= 0) {
    return fail(ErrorCode::unavailable,
                "iscsi-perf says no rate; is the package libiscsi-bin installed?");
  }
  const double ios = result.ios_per_second * std::chrono::duration<double>(duration).count();
  result.cpu_us_per_io = end.cpu_seconds * 1e6 / ios;
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
