// The command that runs many seeds of the simulation, replays plans and shrinks those that fail;
// what it can do: simulate --help.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>

#include "tests/simulation/disk_seeds.h"
#include "tests/simulation/host/plan_runner.h"
#include "tests/simulation/host/plan_shrinker.h"
#include "tests/simulation/host/simulate_options.h"

namespace iscsi_blkback {
namespace {

using Clock = std::chrono::steady_clock;

class Simulate {
 public:
  explicit Simulate(SimulateOptions options) : options_(std::move(options)) {}

  int run() {
    if (options_.disk) {
      run_disks();
    } else if (options_.plan) {
      run_plan_file();
    } else {
      run_seeds();
    }
    if (options_.counts) {
      for (const auto& [what, count] : happened_) {
        std::printf("%10llu %s\n", static_cast<unsigned long long>(count), what.c_str());
      }
    }
    return failed_ == 0 ? 0 : 1;
  }

 private:
  struct Running {
    std::uint64_t seed;
    Plan plan;
    PlanRunner runner;
  };

  void run_seeds() {
    std::deque<Running> running;
    std::uint64_t next = options_.seeds.first;
    const auto wanted = [&] {
      return next <= options_.seeds.last && !(options_.stops && failed_ != 0);
    };
    while (wanted() || !running.empty()) {
      while (wanted() && running.size() < options_.jobs) {
        Plan plan = generate_plan(next, options_.generator);
        if (options_.prints || options_.simulation.prints_log) {
          std::printf("%s", to_text(plan).c_str());
        }
        if (options_.prints) {
          ++next;
          continue;
        }
        PlanRunner runner(plan, options_.simulation);
        running.push_back({next++, std::move(plan), std::move(runner)});
      }
      if (!running.empty()) {
        Running& first = running.front();
        judge(fmt::format("seed {}", first.seed), first.plan, first.runner.result());
        running.pop_front();
        tell_progress(options_.seeds.last - options_.seeds.first + 1);
      }
    }
    if (!options_.prints) {
      std::fprintf(stderr, "%s\n",
                   progress(options_.seeds.last - options_.seeds.first + 1).c_str());
    }
  }

  void run_plan_file() {
    if (options_.prints) {
      std::printf("%s", to_text(*options_.plan).c_str());
      return;
    }
    judge(options_.plan_file, *options_.plan, run_apart(*options_.plan, options_.simulation));
  }

  void judge(const std::string& name, const Plan& plan, const HostSimulationResult& result) {
    ++done_;
    for (const auto& [what, count] : result.happened) {
      happened_[what] += count;
    }
    if (result.failures.empty()) {
      if (options_.plan) {
        std::printf("%s breaks no rule\n", name.c_str());
      }
      return;
    }
    ++failed_;
    ++happened_[fmt::format("failures of {}", to_string(result.failures.front().rule))];
    std::printf("%s fails\n", name.c_str());
    for (const RuleFailure& failure : result.failures) {
      print(failure);
    }
    if (options_.shrinks) {
      shrink(name, plan, result.failures.front().rule);
    } else if (!options_.plan) {
      std::printf("  run it again: simulate --seeds=%s --profile=%s --log\n",
                  name.substr(name.find(' ') + 1).c_str(), options_.generator.profile.c_str());
    }
    std::fflush(stdout);
  }

  static void print(const RuleFailure& failure) {
    std::printf("  at %lld us, %s: %s\n", static_cast<long long>(failure.at_us),
                std::string(to_string(failure.rule)).c_str(), failure.what.c_str());
  }

  void shrink(const std::string& name, const Plan& plan, Rule rule) {
    PlanShrinker shrinker(rule, options_.simulation, options_.jobs, [](const std::string& line) {
      std::fprintf(stderr, "%s\n", line.c_str());
    });
    const Plan small = shrinker.shrink(plan);
    const HostSimulationResult result = run_apart(small, options_.simulation);
    const std::string text = fmt::format("# From {} of profile {}.\n{}", name,
                                         options_.generator.profile, to_text(small));
    std::printf("the smallest plan that fails so:\n%s", text.c_str());
    if (!result.failures.empty()) {
      print(result.failures.front());
    }
    const std::filesystem::path folder =
        options_.keep_folder.empty() ? "/tmp" : options_.keep_folder;
    std::string file_name = fmt::format("{}-{}.plan", to_string(rule), name);
    std::replace_if(
        file_name.begin(), file_name.end(), [](char c) { return c == ' ' || c == '/'; }, '-');
    std::ofstream(folder / file_name) << text;
    std::printf("run it again: simulate --plan=%s --log\n", (folder / file_name).c_str());
  }

  void run_disks() {
    const DiskSeeds seeds(options_.seeds, options_.jobs, options_.shrinks, options_.prints);
    seeds.run([this](bool failed) {
      ++done_;
      failed_ += failed ? 1 : 0;
      tell_progress(options_.seeds.last - options_.seeds.first + 1);
    });
    std::fprintf(stderr, "%s\n", progress(options_.seeds.last - options_.seeds.first + 1).c_str());
  }

  [[nodiscard]] std::string progress(std::uint64_t all) const {
    const double took = std::chrono::duration<double>(Clock::now() - began_).count();
    return fmt::format("{} of {} seeds, {} failed, {:.1f} a second", done_, all, failed_,
                       static_cast<double>(done_) / std::max(took, 0.001));
  }

  void tell_progress(std::uint64_t all) {
    if (Clock::now() - told_ > std::chrono::seconds(5)) {
      told_ = Clock::now();
      std::fprintf(stderr, "%s\n", progress(all).c_str());
    }
  }

  const SimulateOptions options_;
  const Clock::time_point began_ = Clock::now();
  Clock::time_point told_ = began_;
  std::uint64_t done_ = 0;
  std::uint64_t failed_ = 0;
  std::map<std::string, std::uint64_t, std::less<>> happened_;
};

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto asks_for = [&](const char* word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  if (asks_for("--help") || asks_for("-h")) {
    std::printf("%s", iscsi_blkback::kSimulateUsage);
    return 0;
  }
  if (asks_for("--profiles")) {
    for (const std::string_view name : iscsi_blkback::profile_names()) {
      std::printf("%s\n", std::string(name).c_str());
    }
    return 0;
  }
  auto options = iscsi_blkback::parse_simulate_options(words);
  if (!options) {
    std::fprintf(stderr, "%s\n", options.error().message.c_str());
    return 2;
  }
  return iscsi_blkback::Simulate(std::move(*options)).run();
}
