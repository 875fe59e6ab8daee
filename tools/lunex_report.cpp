#include "tools/lunex_report.h"

#include <fmt/format.h>

#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

double seconds_of(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

double rate(double count, Duration elapsed) {
  const double seconds = seconds_of(elapsed);
  return seconds > 0 ? count / seconds : 0;
}

double per_request(double value, const LunexJobResult& result) {
  return result.requests() != 0 ? value / static_cast<double>(result.requests()) : 0;
}

void add_direction(const char* name, const LunexJobResult::Direction& direction, Duration elapsed,
                   PrintableLines& text) {
  if (direction.requests == 0) {
    return;
  }
  const auto us = [](Duration latency) {
    return std::chrono::duration<double, std::micro>(latency).count();
  };
  const LatencyHistogram& latency = direction.latency;
  text.add(fmt::format("{:<6} {:.0f} IOPS, {:.1f} MiB/s, {} requests", fmt::format("{}:", name),
                       rate(static_cast<double>(direction.requests), elapsed),
                       rate(static_cast<double>(direction.bytes), elapsed) / (1024 * 1024),
                       direction.requests));
  text.add(fmt::format(
      "       latency in us: mean {:.1f}, p50 {:.1f}, p99 {:.1f}, p99.9 {:.1f}, max {:.1f}",
      us(latency.mean()), us(latency.percentile(50)), us(latency.percentile(99)),
      us(latency.percentile(99.9)), us(latency.max())));
}

nlohmann::json latency_json(const LatencyHistogram& latency) {
  return {{"min", latency.min().count()},
          {"mean", latency.mean().count()},
          {"p50", latency.percentile(50).count()},
          {"p99", latency.percentile(99).count()},
          {"p99_9", latency.percentile(99.9).count()},
          {"max", latency.max().count()}};
}

nlohmann::json direction_json(const LunexJobResult::Direction& direction, Duration elapsed) {
  return {{"requests", direction.requests},
          {"bytes", direction.bytes},
          {"iops", rate(static_cast<double>(direction.requests), elapsed)},
          {"bandwidth_bytes_per_s", rate(static_cast<double>(direction.bytes), elapsed)},
          {"latency_ns", latency_json(direction.latency)}};
}

}  // namespace

PrintableLines run_text(const LunexRunWords& words, const MultipathSnapshot& disk,
                        const LunexMeasure& measure) {
  const LunexJobResult& result = measure.result;
  PrintableLines text;
  text.add(fmt::format("{} of {} bytes, {} at once, {:.2f} s, {} of {} paths to {} {} {}", words.rw,
                       words.block_bytes, words.depth, seconds_of(result.elapsed), disk.paths_up(),
                       disk.paths.size(), render_size(disk.geometry.sector_count), disk.vendor,
                       disk.product));
  add_direction("read", result.read, result.elapsed, text);
  add_direction("write", result.write, result.elapsed, text);
  text.add(fmt::format("client: {:.2f} us of CPU and {:.3f} system calls a request",
                       per_request(static_cast<double>(measure.client_cpu.count()), result),
                       per_request(static_cast<double>(measure.system_calls), result)));
  text.add(
      fmt::format("errors: {}", result.errors + result.unanswered + (result.mismatch ? 1 : 0)));
  if (measure.connection_losses != 0) {
    text.add(fmt::format("connections lost: {}", measure.connection_losses));
  }
  if (measure.interrupted) {
    text.add("interrupted");
  }
  return text;
}

nlohmann::json run_json(const LunexRunWords& words, const MultipathSnapshot& disk,
                        const LunexMeasure& measure) {
  const LunexJobResult& result = measure.result;
  LatencyHistogram latency = result.read.latency;
  latency.merge(result.write.latency);
  nlohmann::json json = {
      {"rw", words.rw},
      {"bs", words.block_bytes},
      {"iodepth", words.depth},
      {"paths", disk.paths.size()},
      {"paths_up", disk.paths_up()},
      {"elapsed_s", seconds_of(result.elapsed)},
      {"requests", result.requests()},
      {"bytes", result.bytes()},
      {"iops", rate(static_cast<double>(result.requests()), result.elapsed)},
      {"bandwidth_bytes_per_s", rate(static_cast<double>(result.bytes()), result.elapsed)},
      {"latency_ns", latency_json(latency)},
      {"client_cpu_us_per_io",
       per_request(static_cast<double>(measure.client_cpu.count()), result)},
      {"syscalls_per_io", per_request(static_cast<double>(measure.system_calls), result)},
      {"errors", result.errors + result.unanswered + (result.mismatch ? 1 : 0)},
      {"unanswered", result.unanswered},
      {"first_error", result.first_error},
      {"connection_losses", measure.connection_losses},
      {"interrupted", measure.interrupted},
      {"read", direction_json(result.read, result.elapsed)},
      {"write", direction_json(result.write, result.elapsed)}};
  json["mismatch"] = result.mismatch ? mismatch_json(*result.mismatch) : nlohmann::json();
  return json;
}

nlohmann::json mismatch_json(const PatternMismatch& mismatch) {
  return {{"block", mismatch.expected.block},
          {"expected_generation", mismatch.expected.generation},
          {"expected_checksum", mismatch.expected_checksum},
          {"found_pattern", mismatch.is_pattern},
          {"found_block", mismatch.found.block},
          {"found_generation", mismatch.found.generation},
          {"found_checksum", mismatch.found_checksum},
          {"computed_checksum", mismatch.computed_checksum},
          {"same_run", mismatch.found.run == mismatch.expected.run},
          {"text", mismatch.describe()}};
}

}  // namespace iscsi_blkback
