// null_target: the null target as a program, to point any initiator at.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "bench/core_pinning.h"
#include "bench/null_target.h"

namespace iscsi_blkback {
namespace {

int run(int argc, char** argv) {
  NullTargetOptions options = null_target_defaults();
  options.port = 3260;
  std::uint64_t mebibytes = 512;
  std::uint32_t latency_min_us = 0;
  std::uint32_t busy_ms = 0;
  std::uint32_t latency_max_us = 0;
  std::uint32_t busy_poll_us = 0;
  int core = -1;
  bool r2t = false;
  bool no_immediate = false;
  bool separate_status = false;
  TargetOptions& protocol = options.settings.protocol;

  CLI::App app("An iSCSI target in memory on 127.0.0.1 that costs next to nothing, for benchmarks.",
               "null_target");
  app.add_option("--port", options.port, "of the first portal; 0: any that is free")
      ->capture_default_str();
  app.add_option("--portals", options.portals, "one after the other from --port on")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--name", protocol.name, "the target's iqn")->capture_default_str();
  app.add_option("--lun", options.settings.lun_number)->capture_default_str();
  app.add_option("--size", mebibytes, "of the LUN, in MiB")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--core", core, "run on this core only");
  app.add_flag("--one-at-a-time", options.settings.one_at_a_time,
               "send each reply by itself, not all replies to one receive together");
  app.add_option("--latency-min", latency_min_us, "microseconds that a command takes at least");
  app.add_option("--latency-max", latency_max_us,
                 "... and at most; random in between, so that replies change their order");
  app.add_option("--busy", busy_ms,
                 "milliseconds that a read takes; the target answers nothing then");
  app.add_option("--busy-poll", busy_poll_us, "microseconds without a request until it sleeps")
      ->capture_default_str();
  app.add_flag("--initial-r2t", r2t, "ask for all data that is not immediate");
  app.add_flag("--no-immediate-data", no_immediate);
  app.add_flag("--separate-status", separate_status, "a SCSI Response after the data of a read");
  app.add_option("--data-in", protocol.max_data_in_bytes,
                 "bytes of a Data-In at most; 0: no limit");
  app.add_option("--failing-flushes", options.lun.failing_flushes,
                 "so many SYNCHRONIZE CACHE are answered with HARDWARE ERROR first");
  CLI11_PARSE(app, argc, argv);

  options.lun.block_count = mebibytes * 2048;
  options.settings.latency_min = std::chrono::microseconds(latency_min_us);
  options.settings.latency_max =
      std::chrono::microseconds(std::max(latency_min_us, latency_max_us));
  options.settings.busy = std::chrono::milliseconds(busy_ms);
  options.busy_poll = std::chrono::microseconds(busy_poll_us);
  protocol.initial_r2t = r2t;
  protocol.immediate_data = !no_immediate;
  protocol.status_with_data = !separate_status;
  auto target = NullTarget::create(options);
  if (!target) {
    fmt::print(stderr, "null_target: {}\n", target.error().message);
    return 1;
  }
  for (const std::uint16_t port : (*target)->ports()) {
    fmt::print("iscsi://127.0.0.1:{}/{}/{}\n", port, protocol.name, options.settings.lun_number);
  }
  std::fflush(stdout);
  pin_to_core(core);
  (*target)->take_memory();
  const std::atomic<bool> never = false;
  (*target)->run(never);
  for (const std::string& violation : (*target)->violations()) {
    fmt::print(stderr, "null_target: {}\n", violation);
  }
  return 1;
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  return iscsi_blkback::run(argc, argv);
}
