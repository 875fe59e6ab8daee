#include "bench/client_load.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>

#include "bench/child_process.h"

namespace iscsi_blkback {
namespace {

constexpr unsigned kLongestSeconds = 60;  // a client that hangs is ended by SIGALRM

double own_cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return cpu_seconds(usage);
}

double microseconds_of(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

}  // namespace

TimePoint monotonic_now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return TimePoint(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

std::string Workload::url() const {
  return fmt::format("iscsi://127.0.0.1:{}/{}/{}", ports.front(), target_name, lun);
}

void LoadMeter::start() {
  now_ = phase_began_ = monotonic_now();
}

void LoadMeter::wake(std::uint64_t system_calls) {
  now_ = monotonic_now();
  const Duration passed = now_ - phase_began_;
  if (phase_ == Phase::warm_up && passed >= warm_up_) {
    phase_ = Phase::measuring;
    phase_began_ = now_;
    cpu_seconds_ = own_cpu_seconds();
    system_calls_ = system_calls;
    ios_ = 0;
    latency_.clear();
  } else if (phase_ == Phase::measuring && passed >= duration_) {
    phase_ = Phase::done;
    ended_ = now_;
    cpu_seconds_ = own_cpu_seconds() - cpu_seconds_;
    system_calls_ = system_calls - system_calls_;
    measured_ios_ = ios_;
    measured_latency_ = latency_;
  }
}

ClientResult LoadMeter::result() const {
  ClientResult result;
  const auto ios = static_cast<double>(std::max<std::uint64_t>(measured_ios_, 1));
  result.ios_per_second = ios / std::chrono::duration<double>(ended_ - phase_began_).count();
  result.cpu_us_per_io = cpu_seconds_ * 1e6 / ios;
  result.system_calls_per_io = static_cast<double>(system_calls_) / ios;
  result.p50_us = microseconds_of(measured_latency_.percentile(50));
  result.p99_us = microseconds_of(measured_latency_.percentile(99));
  result.errors = errors_;
  return result;
}

Result<ClientResult> run_client_process(const std::function<Result<ClientResult>()>& client,
                                        int core) {
  struct Report {
    bool good = false;
    ClientResult result;
    std::array<char, 512> error{};
  };
  const auto process = start_child(core, [&client](int output) {
    alarm(kLongestSeconds);
    Report report;
    const Result<ClientResult> result = client();
    report.good = result.has_value();
    if (result) {
      report.result = *result;
    } else {
      std::strncpy(report.error.data(), result.error().message.c_str(), report.error.size() - 1);
    }
    const ssize_t written = write(output, &report, sizeof report);
    _exit(written == static_cast<ssize_t>(sizeof report) ? 0 : 1);
  });
  if (!process) {
    return tl::unexpected(process.error());
  }
  Report report;
  const ssize_t got = read(process->output.get(), &report, sizeof report);
  int status = 0;
  waitpid(process->id, &status, 0);
  if (got != static_cast<ssize_t>(sizeof report)) {
    return fail(ErrorCode::unavailable, "a client ended without a result");
  }
  if (!report.good) {
    return fail(ErrorCode::unavailable, report.error.data());
  }
  return report.result;
}

}  // namespace iscsi_blkback
