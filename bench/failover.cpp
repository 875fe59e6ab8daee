// failover: how long requests wait when something happens to their paths: the longest read and
// write of a job that verifies what it reads, while connections through proxies to a target (one in
// memory, or tgt) are reset, closed, silenced or held up. What counts are the longest waits; a
// lost, stale or wrong block is a failure of the run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/uring_reactor.h"
#include "bench/failover_target.h"
#include "tests/support/tcp_proxy.h"
#include "tests/support/tgt_process.h"
#include "tools/lunex/lunex_disk.h"
#include "tools/lunex/lunex_job.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

constexpr Duration kPatience = 60s;
constexpr Duration kBefore = 1s;

struct Rig {
  std::unique_ptr<FailoverTarget> target;
  std::unique_ptr<FailoverTarget> stranger;        // with another LUN, where an event needs it
  std::vector<std::unique_ptr<TcpProxy>> proxies;  // one for each path

  void silence(std::size_t path) {
    proxies[path]->stall(TcpProxy::Way::to_target);
    proxies[path]->stall(TcpProxy::Way::to_initiator);
  }
  void lose(std::size_t path) {
    proxies[path]->set_refusing(true);
    proxies[path]->reset();
  }
  // What is behind this path from now on.
  void lead_to(std::size_t path, const FailoverTarget& where) {
    lose(path);
    proxies[path]->set_target_port(where.port(0));
    proxies[path]->set_refusing(false);
  }
  void restore(std::size_t path) {
    proxies[path]->set_refusing(false);
    proxies[path]->release();
  }
};

struct Step {
  Duration at;  // from the first event
  std::function<void(Rig&)> what;
};

struct Event {
  std::string name;
  std::size_t paths = 2;
  std::vector<Step> steps;
  bool port_groups = false;  // the paths lead to two ALUA port groups, one of them standby
  bool stranger = false;
  // No read and no write may wait longer; 0: for as long as it takes.
  Duration read_goal{};
  Duration write_goal{};
};

constexpr Duration kAtOnce = 50ms;
constexpr Duration kSilentRead = 300ms;
constexpr Duration kSilentWrite = 2200ms;

std::vector<Event> events() {
  std::vector<Event> list;
  list.push_back({.name = "nothing", .steps = {{0s, [](Rig&) {}}}});
  list.push_back(
      {.name = "one of 2 paths: reset",
       .steps = {{0s, [](Rig& rig) { rig.lose(0); }}, {1s, [](Rig& rig) { rig.restore(0); }}},
       .read_goal = kAtOnce,
       .write_goal = kAtOnce});
  list.push_back({.name = "one of 2 paths: closed in the middle of a PDU",
                  .steps = {{0s,
                             [](Rig& rig) {
                               rig.proxies[0]->cut_after(TcpProxy::Way::to_initiator, 20,
                                                         TcpProxy::Ending::fin);
                             }}},
                  .read_goal = kAtOnce,
                  .write_goal = kAtOnce});
  list.push_back(
      {.name = "one of 2 paths: silent, its bytes delivered 4 s later",
       .steps = {{0s, [](Rig& rig) { rig.silence(0); }}, {4s, [](Rig& rig) { rig.restore(0); }}},
       .read_goal = kSilentRead,
       .write_goal = kSilentWrite});
  list.push_back(
      {.name = "one of 8 paths: reset",
       .paths = 8,
       .steps = {{0s, [](Rig& rig) { rig.lose(3); }}, {1s, [](Rig& rig) { rig.restore(3); }}},
       .read_goal = kAtOnce,
       .write_goal = kAtOnce});
  list.push_back(
      {.name = "one of 8 paths: silent",
       .paths = 8,
       .steps = {{0s, [](Rig& rig) { rig.silence(3); }}, {4s, [](Rig& rig) { rig.restore(3); }}},
       .read_goal = kSilentRead,
       .write_goal = kSilentWrite});
  Event flapping{.name = "one of 2 paths: reset once a second",
                 .steps = {},
                 .read_goal = kAtOnce,
                 .write_goal = kAtOnce};
  for (int second = 0; second < 6; ++second) {
    flapping.steps.push_back(
        {std::chrono::seconds(second), [](Rig& rig) { rig.proxies[0]->reset(); }});
  }
  list.push_back(std::move(flapping));
  list.push_back({.name = "the target stopped for 1 s",
                  .steps = {{0s, [](Rig& rig) { rig.target->stop(); }},
                            {1s, [](Rig& rig) { rig.target->go_on(); }}}});
  list.push_back({.name = "both paths: gone for 5 s",
                  .steps = {{0s,
                             [](Rig& rig) {
                               rig.lose(0);
                               rig.lose(1);
                             }},
                            {5s, [](Rig& rig) {
                               rig.restore(0);
                               rig.restore(1);
                             }}}});
  list.push_back({.name = "ALUA: active and standby change places, and back",
                  .steps = {{0s, [](Rig& rig) { rig.target->swap_port_groups(); }},
                            {2s, [](Rig& rig) { rig.target->swap_port_groups(); }}},
                  .port_groups = true,
                  .read_goal = kAtOnce,
                  .write_goal = kAtOnce});
  list.push_back({.name = "one of 2 paths: leads to another LUN for 3 s",
                  .steps = {{0s, [](Rig& rig) { rig.lead_to(0, *rig.stranger); }},
                            {3s, [](Rig& rig) { rig.lead_to(0, *rig.target); }}},
                  .stranger = true});
  return list;
}

struct Outcome {
  LunexJobResult result;
  std::string trouble;  // why the run is worth nothing
};

Result<Outcome> run_event(const Event& event, bool tgt, std::uint32_t depth, Duration after) {
  Rig rig;
  const auto start = [&](bool another) {
    return tgt ? start_tgt(another, event.paths) : start_memory_target(another, event.port_groups);
  };
  auto target = start(false);
  if (!target) {
    return tl::unexpected(target.error());
  }
  rig.target = std::move(*target);
  if (event.stranger) {
    auto stranger = start(true);
    if (!stranger) {
      return tl::unexpected(stranger.error());
    }
    rig.stranger = std::move(*stranger);
  }
  std::string url = "iscsi://";
  for (std::size_t path = 0; path < event.paths; ++path) {
    auto proxy = TcpProxy::start(rig.target->port(path));
    if (!proxy) {
      return tl::unexpected(proxy.error());
    }
    url += fmt::format("{}127.0.0.1:{}", path == 0 ? "" : ",", (*proxy)->port());
    rig.proxies.push_back(std::move(*proxy));
  }
  url += "/" + rig.target->url_end();

  Configuration configuration;
  configuration.initiator_name = configuration.session.initiator_name =
      "iqn.2026-01.local.iscsi-blkback:bench-failover";
  const auto found = look_up_lun(configuration, url, false, std::nullopt);
  if (!found) {
    return tl::unexpected(found.error());
  }
  auto reactor = UringReactor::create();
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  const auto run_until = [&](const std::function<bool()>& condition) {
    const TimePoint end = (*reactor)->now() + kPatience;
    while (!condition() && (*reactor)->now() < end) {
      (*reactor)->run_once(100ms);
    }
    return condition();
  };
  Outcome outcome;
  const std::size_t paths_up = event.port_groups ? event.paths / 2 : event.paths;
  LunexDisk disk(**reactor, found->specification, depth);
  if (!run_until([&] { return disk.settled(); }) || disk.snapshot().paths_up() != paths_up) {
    outcome.trouble = "not every path came up: " + disk.trouble();
  } else {
    LunexGenerations generations(std::random_device{}());
    LunexJobOptions options;
    options.writes = true;
    options.depth = depth;
    options.seed = std::random_device{}();
    options.runtime = kBefore + event.steps.back().at + after;
    auto job = LunexJob::create(**reactor, disk.device(), options, &generations);
    if (!job) {
      outcome.trouble = job.error().message;
    } else {
      std::size_t next = 0;
      const TimePoint began = (*reactor)->now();
      (*job)->start();
      run_until([&] {
        while (next < event.steps.size() &&
               (*reactor)->now() >= began + kBefore + event.steps[next].at) {
          event.steps[next++].what(rig);
        }
        return (*job)->done();
      });
      outcome.result = (*job)->result();
      if (!(*job)->done()) {
        outcome.trouble = fmt::format("{} requests were never answered", (*job)->in_flight());
      } else if (outcome.result.mismatch) {
        outcome.trouble = outcome.result.mismatch->describe();
      } else if (outcome.result.errors() != 0) {
        outcome.trouble = outcome.result.first_error;
      }
    }
  }
  disk.close();
  while (!disk.closed()) {
    (*reactor)->run_once(100ms);
  }
  return outcome;
}

// The machine may be busy with other things: what is missed is said, and fails nothing.
std::string goals(const Event& event, const LunexJobResult& result) {
  if (event.read_goal == Duration{}) {
    return "";
  }
  const auto whole_ms = [](Duration goal) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(goal).count();
  };
  const bool reached = result.read.latency.max() <= event.read_goal &&
                       result.write.latency.max() <= event.write_goal;
  return fmt::format("{} / {}: {}", whole_ms(event.read_goal), whole_ms(event.write_goal),
                     reached ? "yes" : "NO");
}

int run(int argc, char** argv) {
  std::uint32_t depth = 16;
  double after_seconds = 3;
  std::vector<std::string> only;
  std::string target = "memory";
  CLI::App app("Measures how long requests wait when their paths fail.", "failover");
  app.add_option("--depth", depth, "requests under way, half of them writes")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--after", after_seconds, "seconds that the job goes on after the last event")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
  app.add_option("--target", target, "what is behind the proxies; tgt has no ALUA")
      ->check(CLI::IsMember({"memory", "tgt"}))
      ->capture_default_str();
  app.add_option("--only", only, "events whose name contains one of these");
  CLI11_PARSE(app, argc, argv);
  set_log_level(LogLevel::error);

  const auto ms = [](Duration duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
  };
  if (target == "tgt" && !TgtProcess::available()) {
    fmt::print(stderr, "failover: --target tgt needs root and the package tgt\n");
    return 2;
  }
  fmt::print("{}; 4 KiB, depth {}, half of it writes; every block read is compared\n\n", target,
             depth);
  fmt::print(
      "| event | requests | longest read ms | longest write ms | p99.99 read / write ms | goals "
      "|\n");
  fmt::print("|---|---|---|---|---|---|\n");
  int status = 0;
  for (const Event& event : events()) {
    if (!only.empty() && std::none_of(only.begin(), only.end(), [&](const std::string& part) {
          return event.name.find(part) != std::string::npos;
        })) {
      continue;
    }
    if (event.port_groups && target == "tgt") {
      continue;
    }
    const auto outcome = run_event(
        event, target == "tgt", depth,
        std::chrono::duration_cast<Duration>(std::chrono::duration<double>(after_seconds)));
    if (!outcome || !outcome->trouble.empty()) {
      fmt::print("| {} | FAILED: {} |\n", event.name,
                 outcome ? outcome->trouble : outcome.error().message);
      status = 1;
      continue;
    }
    const LunexJobResult& result = outcome->result;
    fmt::print("| {} | {} | {:.1f} | {:.1f} | {:.1f} / {:.1f} | {} |\n", event.name,
               result.requests(), ms(result.read.latency.max()), ms(result.write.latency.max()),
               ms(result.read.latency.percentile(99.99)),
               ms(result.write.latency.percentile(99.99)), goals(event, result));
    std::fflush(stdout);
  }
  return status;
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  return iscsi_blkback::run(argc, argv);
}
