// Peers that are programs: qemu-img bench and fio, each run for about the workload's duration.
// Their start is in the CPU time that getrusage() tells, so they run a little longer than the rest.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bench/child_process.h"
#include "bench/client_load.h"
#include "bench/iscsi_perf.h"

namespace iscsi_blkback {
namespace {

Result<ChildEnd> run_program(const std::vector<std::string>& words, int core) {
  const auto process = start_child(core, [&words](int output) {
    dup2(output, 1);
    dup2(output, 2);
    std::vector<char*> arguments;
    for (const std::string& word : words) {
      arguments.push_back(const_cast<char*>(word.c_str()));
    }
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  });
  if (!process) {
    return tl::unexpected(process.error());
  }
  return wait_for_end(*process);
}

// The program can do it; asked once.
bool output_has(const std::vector<std::string>& words, const char* what) {
  const auto result = run_program(words, -1);
  return result && result->output.find(what) != std::string::npos;
}

// Runs so many requests and returns how long qemu-img says that they took, and its CPU time.
struct QemuRun {
  double seconds = 0;
  double cpu_seconds = 0;
};
Result<QemuRun> run_qemu(const Workload& workload, std::uint64_t count, int core) {
  std::vector<std::string> words = {"qemu-img", "bench",
                                    "-f",       "raw",
                                    "-t",       "none",
                                    "-c",       std::to_string(count),
                                    "-d",       std::to_string(workload.depth),
                                    "-s",       std::to_string(workload.io_bytes)};
  if (workload.write) {
    words.push_back("-w");
  }
  words.push_back(workload.url());
  auto result = run_program(words, core);
  if (!result) {
    return tl::unexpected(result.error());
  }
  constexpr const char* kMark = "completed in ";
  const std::size_t at = result->output.find(kMark);
  if (at == std::string::npos) {
    return fail(ErrorCode::unsupported, "qemu-img: " + result->output);
  }
  return QemuRun{std::strtod(result->output.c_str() + at + std::string_view(kMark).size(), nullptr),
                 result->cpu_seconds};
}

}  // namespace

Result<ClientResult> run_iscsi_perf_client(const Workload& workload, int core) {
  if (workload.write || workload.sessions != 1) {
    return fail(ErrorCode::unsupported, "iscsi-perf only reads, over one session");
  }
  return run_client_process(
      [&workload]() -> Result<ClientResult> {
        const auto result = run_iscsi_perf(workload.url(), workload.io_bytes, workload.depth,
                                           workload.warm_up + workload.duration);
        if (!result) {
          return tl::unexpected(result.error());
        }
        ClientResult client;
        client.ios_per_second = result->ios_per_second;
        client.cpu_us_per_io = result->cpu_us_per_io;
        return client;
      },
      core);
}

Result<ClientResult> run_qemu_img(const Workload& workload, int core) {
  static const bool available = output_has({"qemu-img", "--help"}, " iscsi");
  if (!available) {
    return fail(ErrorCode::unsupported,
                "no qemu-img with iSCSI (packages qemu-utils and qemu-block-extra)");
  }
  if (workload.sessions != 1) {
    return fail(ErrorCode::unsupported, "qemu-img has one session");
  }
  // A short run says how many requests fill the time, and what the start costs.
  const std::uint64_t few = 4 * std::uint64_t{workload.depth};
  const auto first = run_qemu(workload, few, core);
  if (!first) {
    return tl::unexpected(first.error());
  }
  const auto probe = run_qemu(workload, 50 * few, core);
  if (!probe) {
    return tl::unexpected(probe.error());
  }
  const double rate = static_cast<double>(50 * few) / std::max(probe->seconds, 1e-3);
  const double seconds = std::chrono::duration<double>(workload.duration).count();
  const auto count = static_cast<std::uint64_t>(rate * seconds) + few;
  const auto run = run_qemu(workload, count, core);
  if (!run) {
    return tl::unexpected(run.error());
  }
  ClientResult client;
  client.ios_per_second = static_cast<double>(count) / std::max(run->seconds, 1e-6);
  client.cpu_us_per_io =
      (run->cpu_seconds - first->cpu_seconds) * 1e6 / static_cast<double>(count - few);
  return client;
}

Result<ClientResult> run_fio(const Workload& workload, int core) {
  static const bool available = output_has({"fio", "--enghelp"}, "libiscsi");
  if (!available) {
    return fail(ErrorCode::unsupported, "the installed fio has no libiscsi engine");
  }
  const auto result = run_program(
      {"fio", "--name=bench", "--ioengine=libiscsi", "--thread=1", "--time_based=1",
       "--output-format=json", "--filename=" + workload.url(),
       fmt::format("--rw={}", workload.write ? "randwrite" : "randread"),
       fmt::format("--bs={}", workload.io_bytes), fmt::format("--iodepth={}", workload.depth),
       fmt::format("--runtime={}ms", (workload.warm_up + workload.duration).count())},
      core);
  if (!result) {
    return tl::unexpected(result.error());
  }
  const auto json = nlohmann::json::parse(result->output, nullptr, false);
  if (json.is_discarded() || !json.contains("jobs")) {
    return fail(ErrorCode::unavailable, "fio: " + result->output.substr(0, 200));
  }
  const auto& part = json["jobs"][0][workload.write ? "write" : "read"];
  ClientResult client;
  client.ios_per_second = part.value("iops", 0.0);
  client.cpu_us_per_io = result->cpu_seconds * 1e6 / part.value("total_ios", 1.0);
  return client;
}

}  // namespace iscsi_blkback
