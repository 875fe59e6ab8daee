#include "bench/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "bench/median.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kKiB = 1024;
constexpr std::uint32_t kMiB = 1024 * 1024;

Goal cpu_at_most(double limit, Client against = Client::libiscsi) {
  return {.metric = Metric::cpu, .against = against, .limit = limit, .at_most = true};
}
Goal rate_at_least(double limit, Client against) {
  return {.metric = Metric::rate, .against = against, .limit = limit, .at_most = false};
}
Goal latency_at_most_that_of_lib(Metric metric) {
  return {.metric = metric, .against = Client::libiscsi, .limit = 1.0, .at_most = true};
}
Goal system_calls_at_most(double limit) {
  return {.metric = Metric::system_calls, .against = Client::engine, .limit = limit};
}

Comparison line(std::string name, bool write, std::uint32_t io_bytes, std::uint32_t depth,
                std::vector<Client> clients, std::vector<Goal> goals) {
  Comparison comparison;
  comparison.name = std::move(name);
  comparison.workload.write = write;
  comparison.workload.io_bytes = io_bytes;
  comparison.workload.depth = depth;
  comparison.clients = std::move(clients);
  comparison.goals = std::move(goals);
  return comparison;
}

}  // namespace

const char* to_string(Client client) {
  switch (client) {
    case Client::engine:
      return "this engine";
    case Client::engine_depth_128:
      return "this engine, depth 128";
    case Client::engine_digests:
      return "this engine, digests";
    case Client::libiscsi:
      return "lib";
    case Client::iscsi_perf:
      return "iscsi-perf";
    case Client::qemu_img:
      return "qemu-img";
    case Client::fio:
      return "fio";
    case Client::raw:
      return "raw TCP";
    case Client::raw_uring:
      return "raw TCP, io_uring";
    case Client::raw_uring_registered:
      return "raw TCP, registered buffers";
    case Client::raw_uring_zero_copy:
      return "raw TCP, zero-copy send";
    case Client::raw_uring_registered_zero_copy:
      return "raw TCP, both";
  }
  return "unknown";
}

const char* to_string(TargetKind kind) {
  switch (kind) {
    case TargetKind::null:
      return "null target";
    case TargetKind::null_one_at_a_time:
      return "null target, one reply at a time";
    case TargetKind::null_latency:
      return "null target, 50-150 us";
    case TargetKind::tgt:
      return "tgt";
  }
  return "unknown";
}

std::vector<Comparison> initiator_comparisons() {
  using enum Client;
  std::vector<Comparison> lines;
  lines.push_back(line("4 KiB read, depth 32", false, 4 * kKiB, 32,
                       {engine, libiscsi, iscsi_perf, qemu_img, fio, raw},
                       {cpu_at_most(0.18), rate_at_least(2.8, iscsi_perf), cpu_at_most(1.1, raw),
                        system_calls_at_most(0.25)}));
  lines.push_back(line("4 KiB read, depth 128", false, 4 * kKiB, 128,
                       {engine, libiscsi, iscsi_perf, qemu_img, fio},
                       {cpu_at_most(0.14), rate_at_least(3.3, iscsi_perf)}));
  lines.push_back(line("4 KiB read, depth 1024", false, 4 * kKiB, 1024, {engine, engine_depth_128},
                       {cpu_at_most(1.1, engine_depth_128)}));
  lines.push_back(line("4 KiB write, depth 32", true, 4 * kKiB, 32,
                       {engine, libiscsi, qemu_img, fio, raw},
                       {cpu_at_most(0.11), rate_at_least(7, libiscsi), cpu_at_most(1.1, raw),
                        system_calls_at_most(0.25)}));
  lines.push_back(
      line("4 KiB read, depth 32 over 2 sessions", false, 4 * kKiB, 32, {engine, libiscsi}, {}));
  lines.back().workload.sessions = 2;
  lines.push_back(line("4 KiB read, depth 32 over 4 sessions", false, 4 * kKiB, 32,
                       {engine, libiscsi}, {cpu_at_most(0.26), rate_at_least(1.9, libiscsi)}));
  lines.back().workload.sessions = 4;
  lines.push_back(line("4 KiB read, depth 1", false, 4 * kKiB, 1,
                       {engine, libiscsi, iscsi_perf, qemu_img, raw},
                       {cpu_at_most(0.95), rate_at_least(1.02, iscsi_perf),
                        latency_at_most_that_of_lib(Metric::p50)}));
  lines.push_back(line("4 KiB write, depth 1", true, 4 * kKiB, 1, {engine, libiscsi, qemu_img, raw},
                       {cpu_at_most(0.72), rate_at_least(1.15, libiscsi),
                        latency_at_most_that_of_lib(Metric::p50)}));
  lines.push_back(line("64 KiB read, depth 16", false, 64 * kKiB, 16,
                       {engine, libiscsi, iscsi_perf, qemu_img, raw},
                       {cpu_at_most(0.97), rate_at_least(1.0, libiscsi)}));
  lines.push_back(line("1 MiB read, depth 4", false, kMiB, 4,
                       {engine, libiscsi, iscsi_perf, qemu_img, raw},
                       {cpu_at_most(1.0), rate_at_least(1.0, libiscsi)}));
  lines.push_back(line("64 KiB write, depth 16", true, 64 * kKiB, 16,
                       {engine, libiscsi, qemu_img, raw},
                       {cpu_at_most(0.52), rate_at_least(1.7, libiscsi)}));
  lines.push_back(line("1 MiB write, depth 4", true, kMiB, 4, {engine, libiscsi, qemu_img, raw},
                       {cpu_at_most(0.75), rate_at_least(1.25, libiscsi)}));
  for (const bool write : {false, true}) {
    const char* what = write ? "write" : "read";
    lines.push_back(line(fmt::format("4 KiB {}, depth 32, both digests", what), write, 4 * kKiB, 32,
                         {engine, engine_digests},
                         {{.metric = Metric::cpu,
                           .against = engine,
                           .limit = 0.8,
                           .at_most = true,
                           .difference = true,
                           .subject = engine_digests}}));
    lines.push_back(line(fmt::format("64 KiB {}, depth 16, both digests", what), write, 64 * kKiB,
                         16, {engine, engine_digests},
                         {{.metric = Metric::cpu,
                           .against = engine,
                           .limit = 1.3,
                           .at_most = true,
                           .difference = false,
                           .subject = engine_digests}}));
  }
  lines.push_back(
      line("tgt, 4 KiB read, depth 32", false, 4 * kKiB, 32,
           {engine, libiscsi, iscsi_perf, qemu_img, fio},
           {cpu_at_most(0.55), rate_at_least(1.2, libiscsi), rate_at_least(1.05, qemu_img)}));
  lines.back().target = TargetKind::tgt;
  lines.push_back(line("one reply at a time, 4 KiB read, depth 32", false, 4 * kKiB, 32,
                       {engine, libiscsi, iscsi_perf},
                       {cpu_at_most(0.30), rate_at_least(1.4, libiscsi)}));
  lines.back().target = TargetKind::null_one_at_a_time;
  lines.push_back(line(
      "50-150 us, 4 KiB read, depth 32", false, 4 * kKiB, 32, {engine, libiscsi, iscsi_perf},
      {cpu_at_most(0.50), rate_at_least(0.9, libiscsi), latency_at_most_that_of_lib(Metric::p99)}));
  lines.back().target = TargetKind::null_latency;
  // Whether registered buffers or zero-copy send would serve the engine: no goals.
  for (const auto& [write, io_bytes, depth, size] :
       {std::tuple{false, 4 * kKiB, 32U, "4 KiB"}, std::tuple{true, 4 * kKiB, 32U, "4 KiB"},
        std::tuple{false, 64 * kKiB, 16U, "64 KiB"}, std::tuple{true, 64 * kKiB, 16U, "64 KiB"},
        std::tuple{true, kMiB, 4U, "1 MiB"}}) {
    lines.push_back(
        line(fmt::format("buffers: {} {}, depth {}", size, write ? "write" : "read", depth), write,
             io_bytes, depth,
             {engine, raw, raw_uring, raw_uring_registered, raw_uring_zero_copy,
              raw_uring_registered_zero_copy},
             {}));
  }
  return lines;
}

std::string Goal::text() const {
  static constexpr const char* kNames[] = {"CPU", "IO/s", "p50", "p99", "system calls a request"};
  std::string what = kNames[static_cast<std::size_t>(metric)];
  if (subject != Client::engine) {
    what += fmt::format(" ({})", to_string(subject));
  }
  const char* bound = at_most ? "at most" : "at least";
  if (against == subject) {
    return fmt::format("{} {} {:g}", what, bound, limit);
  }
  return difference
             ? fmt::format("{} {} {:g} us more than {}", what, bound, limit, to_string(against))
             : fmt::format("{} {} {:g} x {}", what, bound, limit, to_string(against));
}

double metric_of(const ClientResult& result, Metric metric) {
  switch (metric) {
    case Metric::cpu:
      return result.cpu_us_per_io;
    case Metric::rate:
      return result.ios_per_second;
    case Metric::p50:
      return result.p50_us;
    case Metric::p99:
      return result.p99_us;
    case Metric::system_calls:
      return result.system_calls_per_io;
  }
  return 0;
}

double Comparison::median_of(Client client, Metric metric) const {
  const auto found = results.find(client);
  std::vector<double> values;
  if (found != results.end()) {
    for (const ClientResult& result : found->second) {
      values.push_back(metric_of(result, metric));
    }
  }
  return median(std::move(values));
}

double Comparison::measured(const Goal& goal) const {
  if (goal.against == goal.subject) {
    return median_of(goal.subject, goal.metric);
  }
  const auto ours = results.find(goal.subject);
  const auto theirs = results.find(goal.against);
  if (ours == results.end() || theirs == results.end()) {
    return std::nan("");
  }
  std::vector<double> values;
  const std::size_t rounds = std::min(ours->second.size(), theirs->second.size());
  for (std::size_t round = 0; round < rounds; ++round) {
    const double a = metric_of(ours->second[round], goal.metric);
    const double b = metric_of(theirs->second[round], goal.metric);
    values.push_back(goal.difference ? a - b : a / b);
  }
  return median(std::move(values));
}

std::string details(const Comparison& line) {
  std::string text = fmt::format("{:<42} {:>9} {:>8} {:>8} {:>8} {:>7}   {:>6} {:>6}\n", line.name,
                                 "IO/s", "CPU us", "p50 us", "p99 us", "calls", "CPU x", "IO/s x");
  const auto number = [](double value, int decimals) {
    return std::isnan(value) || value == 0 ? std::string("-")
                                           : fmt::format("{:.{}f}", value, decimals);
  };
  for (const Client client : line.clients) {
    if (!line.results.contains(client)) {
      continue;
    }
    // Ours as a multiple of the other's.
    const double cpu = line.measured({.metric = Metric::cpu, .against = client, .limit = 0});
    const double rate = line.measured({.metric = Metric::rate, .against = client, .limit = 0});
    const bool self = client == Client::engine;
    text += fmt::format("  {:<40} {:>9} {:>8} {:>8} {:>8} {:>7}   {:>6} {:>6}\n", to_string(client),
                        number(line.median_of(client, Metric::rate), 0),
                        number(line.median_of(client, Metric::cpu), 3),
                        number(line.median_of(client, Metric::p50), 1),
                        number(line.median_of(client, Metric::p99), 1),
                        number(line.median_of(client, Metric::system_calls), 3),
                        self ? "" : number(cpu, 3), self ? "" : number(rate, 2));
  }
  return text;
}

std::string goal_table(const std::vector<Comparison>& lines) {
  std::string text = "| work | goal | measured | reached |\n|---|---|---|---|\n";
  for (const Comparison& line : lines) {
    for (const Goal& goal : line.goals) {
      const double value = line.measured(goal);
      const bool reached = goal.at_most ? value <= goal.limit : value >= goal.limit;
      text += std::isnan(value)
                  ? fmt::format("| {} | {} | - | not measured |\n", line.name, goal.text())
                  : fmt::format("| {} | {} | {:.3f} | {} |\n", line.name, goal.text(), value,
                                reached ? "yes" : "NO");
    }
  }
  return text;
}

}  // namespace iscsi_blkback
