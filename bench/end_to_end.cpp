// end_to_end: from a guest's ring to tgt on loopback and back, beside iscsi-perf on the same target
// in the same run. Rounds are interleaved and medians are shown, so that what else the machine does
// hits both; what counts are the ratios.
//
// iscsi-perf reads only, over one session, and has no ring: rows with two paths are compared with
// its one session, rows with writes with nothing. Its CPU time is that of its whole process; ours
// is that of the I/O thread, which does all the work but the guest's own.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "bench/guest_load.h"
#include "bench/iscsi_perf.h"
#include "bench/median.h"
#include "bench/only_named.h"
#include "tests/support/tgt_process.h"
#include "tools/program/program_version.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kDiskBytes = 256ULL * 1024 * 1024;

struct Cell {
  bool write = false;
  std::uint32_t io_bytes = 0;
  std::uint32_t depth = 0;
  std::uint32_t paths = 0;

  // One number a round.
  std::vector<double> rate;
  std::vector<double> cpu_us;
  std::vector<double> p50_us;
  std::vector<double> p99_us;
  std::vector<double> asleep_rate;  // ours, without a look before it sleeps
  std::vector<double> asleep_cpu_us;
  std::vector<double> asleep_p50_us;
  std::vector<double> perf_rate;
  std::vector<double> perf_cpu_us;
  std::vector<double> rate_ratio;
  std::vector<double> cpu_ratio;
  std::vector<double> awake_rate_ratio;  // to asleep
  std::vector<double> awake_cpu_ratio;
  std::vector<double> awake_p50_ratio;

  [[nodiscard]] std::string name() const {
    return fmt::format("{:>3} KiB {} QD{:<2} {} path{}", io_bytes / 1024, write ? "write" : "read ",
                       depth, paths, paths == 1 ? " " : "s");
  }
};

std::vector<Cell> make_cells(bool with_writes) {
  std::vector<Cell> cells;
  for (const bool write : {false, true}) {
    if (write && !with_writes) {
      continue;
    }
    for (const std::uint32_t io_bytes : {4096U, 131072U}) {
      for (const std::uint32_t depth : {1U, 32U}) {
        for (const std::uint32_t paths : {1U, 2U}) {
          Cell cell;
          cell.write = write;
          cell.io_bytes = io_bytes;
          cell.depth = depth;
          cell.paths = paths;
          cells.push_back(std::move(cell));
        }
      }
    }
  }
  return cells;
}

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

enum class Who : std::uint8_t { ours, asleep, perf };

Result<void> measure_ours(const TgtProcess& server, Cell& cell, Who who, const PollLimits& poll,
                          std::chrono::milliseconds duration) {
  GuestLoad::Disk disk;
  if (who == Who::ours) {
    disk.poll = poll;
  }
  disk.target_name = TgtProcess::kTargetName;
  disk.lun = TgtProcess::kLun;
  disk.bytes = kDiskBytes;
  for (std::size_t path = 0; path < cell.paths; ++path) {
    disk.ports.push_back(server.port(path));
  }
  auto load = GuestLoad::start(disk);
  if (!load) {
    return tl::unexpected(load.error());
  }
  const LoadResult result = (*load)->run(cell.write, cell.io_bytes, cell.depth, duration);
  if (result.errors != 0) {
    return fail(ErrorCode::io, fmt::format("{}: {} errors", cell.name(), result.errors));
  }
  const double p50_us = microseconds(result.latency.percentile(50));
  if (who == Who::asleep) {
    cell.asleep_rate.push_back(result.ios_per_second);
    cell.asleep_cpu_us.push_back(result.cpu_us_per_io);
    cell.asleep_p50_us.push_back(p50_us);
    return {};
  }
  cell.rate.push_back(result.ios_per_second);
  cell.cpu_us.push_back(result.cpu_us_per_io);
  cell.p50_us.push_back(p50_us);
  cell.p99_us.push_back(microseconds(result.latency.percentile(99)));
  return {};
}

Result<void> measure_perf(const TgtProcess& server, Cell& cell,
                          std::chrono::milliseconds duration) {
  const std::string url = fmt::format("iscsi://127.0.0.1:{}/{}/{}", server.port(),
                                      TgtProcess::kTargetName, TgtProcess::kLun);
  const auto result = run_iscsi_perf(url, cell.io_bytes, cell.depth, duration);
  if (!result) {
    return tl::unexpected(result.error());
  }
  cell.perf_rate.push_back(result->ios_per_second);
  cell.perf_cpu_us.push_back(result->cpu_us_per_io);
  return {};
}

Result<void> measure(const TgtProcess& server, Cell& cell, int round, const PollLimits& poll,
                     std::chrono::milliseconds duration) {
  // Who begins changes from round to round.
  std::array order = {Who::ours, Who::asleep, Who::perf};
  std::rotate(order.begin(), order.begin() + round % 3, order.end());
  for (const Who who : order) {
    if (who == Who::perf && cell.write) {
      continue;
    }
    auto done = who == Who::perf ? measure_perf(server, cell, duration)
                                 : measure_ours(server, cell, who, poll, duration);
    if (!done) {
      return done;
    }
  }
  if (!cell.write) {
    cell.rate_ratio.push_back(cell.rate.back() / cell.perf_rate.back());
    cell.cpu_ratio.push_back(cell.cpu_us.back() / cell.perf_cpu_us.back());
  }
  cell.awake_rate_ratio.push_back(cell.rate.back() / cell.asleep_rate.back());
  cell.awake_cpu_ratio.push_back(cell.cpu_us.back() / cell.asleep_cpu_us.back());
  cell.awake_p50_ratio.push_back(cell.p50_us.back() / cell.asleep_p50_us.back());
  return {};
}

std::string number(double value, int decimals) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, decimals);
}

void print_table(const std::vector<Cell>& cells) {
  fmt::print("{:<27} {:>9} {:>10} {:>6}   {:>8} {:>10} {:>6}   {:>8} {:>8}   {:>18}\n", "", "IO/s",
             "iscsi-perf", "ratio", "CPU us", "iscsi-perf", "ratio", "p50 us", "p99 us",
             "to asleep: IO/s CPU p50");
  for (const Cell& cell : cells) {
    fmt::print(
        "{:<27} {:>9} {:>10} {:>6}   {:>8} {:>10} {:>6}   {:>8} {:>8}   {:>15} {:>5} {:>5}\n",
        cell.name(), number(median(cell.rate), 0), number(median(cell.perf_rate), 0),
        number(median(cell.rate_ratio), 2), number(median(cell.cpu_us), 2),
        number(median(cell.perf_cpu_us), 2), number(median(cell.cpu_ratio), 2),
        number(median(cell.p50_us), 0), number(median(cell.p99_us), 0),
        number(median(cell.awake_rate_ratio), 2), number(median(cell.awake_cpu_ratio), 2),
        number(median(cell.awake_p50_ratio), 2));
  }
}

nlohmann::json to_json(const std::vector<Cell>& cells) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Cell& cell : cells) {
    rows.push_back({{"operation", cell.write ? "write" : "read"},
                    {"io_bytes", cell.io_bytes},
                    {"queue_depth", cell.depth},
                    {"paths", cell.paths},
                    {"ios_per_second", cell.rate},
                    {"cpu_us_per_io", cell.cpu_us},
                    {"latency_p50_us", cell.p50_us},
                    {"latency_p99_us", cell.p99_us},
                    {"asleep_ios_per_second", cell.asleep_rate},
                    {"asleep_cpu_us_per_io", cell.asleep_cpu_us},
                    {"asleep_latency_p50_us", cell.asleep_p50_us},
                    {"iscsi_perf_ios_per_second", cell.perf_rate},
                    {"iscsi_perf_cpu_us_per_io", cell.perf_cpu_us},
                    {"rate_ratio", cell.rate_ratio},
                    {"cpu_ratio", cell.cpu_ratio}});
  }
  return rows;
}

int run(int argc, char** argv) {
  int rounds = 5;
  double seconds = 2;
  bool with_writes = false;
  std::uint32_t poll_max_us = 100;
  PollLimits poll;
  std::vector<std::string> only;
  std::string json_file;
  CLI::App app("Measures the way from a guest's ring to tgt on loopback, beside iscsi-perf.",
               "end_to_end");
  app.set_version_flag("--version", program_version("end_to_end"));
  app.add_option("--rounds", rounds, "rounds; the table shows medians")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", seconds, "seconds a measurement")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
  app.add_flag("--writes", with_writes, "writes too (iscsi-perf has none to compare with)");
  app.add_option("--poll-max-us", poll_max_us, "how long the reactor looks before it sleeps")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--poll-cpu-percent", poll.cpu_percent, "of the time, for looking, at most")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--only", only, "rows whose name contains one of these, like \"4 KiB write\"");
  app.add_option("--json", json_file, "every single number into this file");
  CLI11_PARSE(app, argc, argv);

  set_log_level(LogLevel::warning);
  poll.longest = std::chrono::microseconds(poll_max_us);
  const std::chrono::milliseconds duration(std::llround(seconds * 1000));
  TgtProcess server;
  if (const auto started = server.start({.disk_bytes = kDiskBytes, .filled = true, .portals = 2});
      !started) {
    fmt::print(stderr, "end_to_end: {}\n", started.error().message);
    return 1;
  }
  std::vector<Cell> cells = make_cells(with_writes);
  keep_only_named(cells, only, [](const Cell& cell) { return cell.name(); });
  if (cells.empty()) {
    fmt::print(stderr, "end_to_end: no row's name contains what --only says: {}\n",
               fmt::join(only, ", "));
    return 1;
  }
  for (int round = 0; round < rounds; ++round) {
    for (Cell& cell : cells) {
      fmt::print(stderr, "\rround {} of {}: {}    ", round + 1, rounds, cell.name());
      if (auto measured = measure(server, cell, round, poll, duration); !measured) {
        fmt::print(stderr, "\nend_to_end: {}\n", measured.error().message);
        return 1;
      }
    }
  }
  fmt::print(stderr, "\n");
  fmt::print("{}; tgt on loopback, {} rounds of {} s, medians, ratios of each round\n",
             program_version("end_to_end"), rounds, seconds);
#ifndef NDEBUG
  fmt::print("built without optimisation: these numbers say nothing\n");
#endif
  print_table(cells);
  if (!json_file.empty()) {
    std::ofstream(json_file) << to_json(cells).dump(2) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  return iscsi_blkback::run(argc, argv);
}
