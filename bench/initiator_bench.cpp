// initiator_bench: what a request costs in our iSCSI engine, beside libiscsi's best and other peers
// on the same target in the same run. Client on core 0, target on core 1; the clients of a line
// take turns in random order within each round, and goals are medians of each round's ratios, so
// that what else the machine does hits all of them.
#include <fmt/format.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "bench/comparison.h"
#include "bench/core_pinning.h"
#include "bench/machine_costs.h"
#include "bench/null_target.h"
#include "bench/only_named.h"
#include "tests/support/tgt_process.h"

namespace iscsi_blkback {
namespace {

constexpr int kClientCore = 0;
constexpr int kTargetCore = 1;
// Longer than any client takes between two requests: the null target has its core for itself.
constexpr std::chrono::milliseconds kTargetBusyPoll{1};
constexpr std::uint64_t kTgtBytes = std::uint64_t{256} << 20;

// The targets that one line needs.
class Targets {
 public:
  static Result<std::unique_ptr<Targets>> start(const Comparison& line) {
    auto targets = std::make_unique<Targets>();
    if (line.target == TargetKind::tgt) {
      // tgtd inherits the core that its parent is on while it starts.
      cpu_set_t before;
      sched_getaffinity(0, sizeof before, &before);
      pin_to_core(kTargetCore);
      targets->tgt_ = std::make_unique<TgtProcess>();
      targets->lun_bytes_ = kTgtBytes;
      const auto started = targets->tgt_->start({.disk_bytes = kTgtBytes, .filled = true});
      sched_setaffinity(0, sizeof before, &before);
      if (!started) {
        return tl::unexpected(started.error());
      }
      return targets;
    }
    NullTargetOptions options = null_target_defaults();
    options.busy_poll = kTargetBusyPoll;
    options.settings.one_at_a_time = line.target == TargetKind::null_one_at_a_time;
    if (line.target == TargetKind::null_latency) {
      options.settings.latency_min = std::chrono::microseconds(50);
      options.settings.latency_max = std::chrono::microseconds(150);
    }
    targets->lun_bytes_ = options.lun.block_count * options.lun.block_bytes;
    targets->name_ = options.settings.protocol.name;
    auto null = NullTargetProcess::start(options, kTargetCore);
    if (!null) {
      return tl::unexpected(null.error());
    }
    targets->null_ = std::move(*null);
    if (std::any_of(line.clients.begin(), line.clients.end(), is_raw)) {
      const auto header = static_cast<std::uint32_t>(kBhsBytes);
      const std::uint32_t with_data = header + line.workload.io_bytes;
      options.raw_request_bytes = line.workload.write ? with_data : header;
      options.raw_reply_bytes = line.workload.write ? header : with_data;
      auto raw = NullTargetProcess::start(options, kTargetCore);
      if (!raw) {
        return tl::unexpected(raw.error());
      }
      targets->raw_ = std::move(*raw);
    }
    return targets;
  }

  [[nodiscard]] Workload complete(Workload workload, Client client) const {
    workload.lun_bytes = lun_bytes_;
    workload.digests = client == Client::engine_digests;
    if (client == Client::engine_depth_128) {
      workload.depth = 128;
    }
    if (tgt_) {
      workload.target_name = TgtProcess::kTargetName;
      workload.lun = TgtProcess::kLun;
      workload.ports = {tgt_->port()};
    } else {
      workload.target_name = name_;
      workload.ports = is_raw(client) ? raw_->ports() : null_->ports();
    }
    return workload;
  }

 private:
  std::unique_ptr<TgtProcess> tgt_;
  std::unique_ptr<NullTargetProcess> null_;
  std::unique_ptr<NullTargetProcess> raw_;
  std::string name_;
  std::uint64_t lun_bytes_ = 0;
};

Result<ClientResult> run_uring_client(const Workload& workload, UringBuffers buffers) {
  return run_client_process([&] { return run_uring(workload, buffers); }, kClientCore);
}

Result<ClientResult> run_client(Client client, const Workload& workload) {
  switch (client) {
    case Client::engine:
    case Client::engine_depth_128:
    case Client::engine_digests:
      return run_client_process([&workload] { return run_engine(workload); }, kClientCore);
    case Client::libiscsi:
      return run_client_process([&workload] { return run_libiscsi(workload); }, kClientCore);
    case Client::raw:
      return run_client_process([&workload] { return run_raw(workload); }, kClientCore);
    case Client::raw_uring:
      return run_uring_client(workload, UringBuffers::plain);
    case Client::raw_uring_registered:
      return run_uring_client(workload, UringBuffers::registered);
    case Client::raw_uring_zero_copy:
      return run_uring_client(workload, UringBuffers::zero_copy);
    case Client::raw_uring_registered_zero_copy:
      return run_uring_client(workload, UringBuffers::registered_zero_copy);
    case Client::iscsi_perf:
      return run_iscsi_perf_client(workload, kClientCore);
    case Client::qemu_img:
      return run_qemu_img(workload, kClientCore);
    case Client::fio:
      return run_fio(workload, kClientCore);
  }
  return fail(ErrorCode::invalid_argument, "no such client");
}

struct Run {
  int rounds = 5;
  double seconds = 0.6;
  bool programs = true;
  std::vector<std::string> clients;  // names; none: all
  std::mt19937 random{std::random_device{}()};
  std::set<std::string> notes;  // why clients are missing
};

Result<void> measure(Comparison& line, Run& run) {
  auto targets = Targets::start(line);
  if (!targets) {
    return tl::unexpected(targets.error());
  }
  line.workload.duration = std::chrono::milliseconds(std::llround(run.seconds * 1000));
  if (!run.programs) {
    std::erase_if(line.clients, [](Client client) {
      return client == Client::iscsi_perf || client == Client::qemu_img || client == Client::fio;
    });
  }
  if (!run.clients.empty()) {
    std::erase_if(line.clients, [&run](Client client) {
      return std::find(run.clients.begin(), run.clients.end(), to_string(client)) ==
             run.clients.end();
    });
  }
  std::vector<Client> order = line.clients;
  for (int round = 0; round < run.rounds; ++round) {
    std::shuffle(order.begin(), order.end(), run.random);
    for (auto client = order.begin(); client != order.end();) {
      fmt::print(stderr, "\r\033[K{}: round {} of {}, {}", line.name, round + 1, run.rounds,
                 to_string(*client));
      const auto result = run_client(*client, (*targets)->complete(line.workload, *client));
      if (!result && result.error().code == ErrorCode::unsupported) {
        run.notes.insert(result.error().message);
        client = order.erase(client);
        continue;
      }
      if (!result) {
        return fail(result.error().code, fmt::format("{}, {}: {}", line.name, to_string(*client),
                                                     result.error().message));
      }
      if (result->errors != 0) {
        return fail(ErrorCode::io, fmt::format("{}, {}: {} requests failed", line.name,
                                               to_string(*client), result->errors));
      }
      line.results[*client].push_back(*result);
      ++client;
    }
  }
  fmt::print(stderr, "\r\033[K");
  return {};
}

nlohmann::json to_json(const std::vector<Comparison>& lines) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Comparison& line : lines) {
    nlohmann::json clients = nlohmann::json::object();
    for (const auto& [client, results] : line.results) {
      nlohmann::json rounds = nlohmann::json::array();
      for (const ClientResult& result : results) {
        rounds.push_back({{"ios_per_second", result.ios_per_second},
                          {"cpu_us_per_io", result.cpu_us_per_io},
                          {"system_calls_per_io", result.system_calls_per_io},
                          {"p50_us", result.p50_us},
                          {"p99_us", result.p99_us}});
      }
      clients[to_string(client)] = std::move(rounds);
    }
    nlohmann::json goals = nlohmann::json::array();
    for (const Goal& goal : line.goals) {
      const double value = line.measured(goal);
      goals.push_back({{"goal", goal.text()},
                       {"measured", std::isnan(value) ? nlohmann::json() : nlohmann::json(value)}});
    }
    rows.push_back({{"work", line.name},
                    {"target", to_string(line.target)},
                    {"clients", std::move(clients)},
                    {"goals", std::move(goals)}});
  }
  return rows;
}

int run(int argc, char** argv) {
  Run run;
  std::vector<std::string> only;
  bool list = false;
  bool no_programs = false;
  std::string json_file;
  CLI::App app("Measures the iSCSI engine beside libiscsi and others on the same target.",
               "initiator_bench");
  app.add_option("--rounds", run.rounds, "rounds; the table shows medians")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", run.seconds, "seconds a measurement")
      ->check(CLI::Range(0.01, 600.0))
      ->capture_default_str();
  app.add_option("--only", only, "lines whose name contains one of these");
  app.add_option("--clients", run.clients, "these only, by their names in the table");
  app.add_flag("--list", list, "the lines' names");
  app.add_flag("--no-programs", no_programs, "leave out the peers that are programs of their own");
  app.add_option("--json", json_file, "every single number into this file");
  CLI11_PARSE(app, argc, argv);
  run.programs = !no_programs;

  set_log_level(LogLevel::warning);
  std::vector<Comparison> lines = initiator_comparisons();
  keep_only_named(lines, only, [](const Comparison& line) { return line.name; });
  if (list) {
    for (const Comparison& line : lines) {
      fmt::print("{}\n", line.name);
    }
    return 0;
  }
  for (Comparison& line : lines) {
    if (auto measured = measure(line, run); !measured) {
      fmt::print(stderr, "\ninitiator_bench: {}\n", measured.error().message);
      return 1;
    }
    fmt::print("{}\n", details(line));
    std::fflush(stdout);
  }
  fmt::print("{} rounds of {} s, medians; CPU is user and system time a request\n", run.rounds,
             run.seconds);
  fmt::print("{}\n", measure_machine_costs(kClientCore, kTargetCore).text());
#ifndef NDEBUG
  fmt::print("built without optimisation: these numbers say nothing\n");
#endif
  for (const std::string& note : run.notes) {
    fmt::print("left out: {}\n", note);
  }
  fmt::print("\n{}", goal_table(lines));
  if (!json_file.empty()) {
    std::ofstream(json_file) << to_json(lines).dump(2) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  return iscsi_blkback::run(argc, argv);
}
