#include "tools/lunex/lunex_report.h"

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

std::string paths_text(const MultipathSnapshot& disk, std::size_t fewest_up) {
  const std::size_t up = disk.paths_up();
  const std::size_t all = disk.paths.size();
  return fewest_up == up
             ? fmt::format("{} of {} paths", up, all)
             : fmt::format("{} of {} paths at the end, {} at the least", up, all, fewest_up);
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

PrintableLines run_text(const LunexRunWords& words, const LunexMeasure& measure) {
  const LunexJobResult& result = measure.result;
  const MultipathSnapshot& disk = measure.disk;
  PrintableLines text;
  text.add(fmt::format("{} of {} bytes, {} at once, {:.2f} s, {} to {} {} {}", words.rw,
                       words.block_bytes, words.depth, seconds_of(result.elapsed),
                       paths_text(disk, measure.fewest_paths_up),
                       render_size(disk.geometry.sector_count), disk.vendor, disk.product));
  add_direction("read", result.read, result.elapsed, text);
  add_direction("write", result.write, result.elapsed, text);
  text.add(fmt::format("client: {:.2f} us of CPU and {:.3f} system calls a request",
                       per_request(static_cast<double>(measure.client_cpu.count()), result),
                       per_request(static_cast<double>(measure.system_calls), result)));
  if (words.verify) {
    text.add(fmt::format("compared: {} bytes", result.compared_bytes));
  }
  text.add(fmt::format("errors: {}", result.errors()));
  if (result.unanswered != 0) {
    text.add(fmt::format("never answered: {}, after up to {:.2f} s, which no latency shows",
                         result.unanswered, seconds_of(result.longest_unanswered)));
  }
  if (measure.connection_losses != 0) {
    text.add(fmt::format("connections lost: {}", measure.connection_losses));
  }
  if (measure.interrupted) {
    text.add("interrupted");
  }
  return text;
}

nlohmann::json run_json(const LunexRunWords& words, const LunexMeasure& measure) {
  const LunexJobResult& result = measure.result;
  const MultipathSnapshot& disk = measure.disk;
  LatencyHistogram latency = result.read.latency;
  latency.merge(result.write.latency);
  nlohmann::json json = {
      {"rw", words.rw},
      {"bs", words.block_bytes},
      {"iodepth", words.depth},
      {"paths", disk.paths.size()},
      {"paths_up", disk.paths_up()},
      {"paths_up_least", measure.fewest_paths_up},
      {"elapsed_s", seconds_of(result.elapsed)},
      {"requests", result.requests()},
      {"bytes", result.bytes()},
      {"iops", rate(static_cast<double>(result.requests()), result.elapsed)},
      {"bandwidth_bytes_per_s", rate(static_cast<double>(result.bytes()), result.elapsed)},
      {"latency_ns", latency_json(latency)},
      {"client_cpu_us_per_io",
       per_request(static_cast<double>(measure.client_cpu.count()), result)},
      {"syscalls_per_io", per_request(static_cast<double>(measure.system_calls), result)},
      {"errors", result.errors()},
      {"failed", result.failed},
      {"unanswered", result.unanswered},
      {"unanswered_longest_ns", result.longest_unanswered.count()},
      {"first_error", result.first_error},
      {"connection_losses", measure.connection_losses},
      {"interrupted", measure.interrupted},
      {"read", direction_json(result.read, result.elapsed)},
      {"write", direction_json(result.write, result.elapsed)}};
  json["compared_bytes"] = words.verify ? nlohmann::json(result.compared_bytes) : nlohmann::json();
  json["mismatch"] = result.mismatch ? mismatch_json(*result.mismatch) : nlohmann::json();
  return json;
}

std::string verdict_text(const LunexVerdict& verdict) {
  if (verdict.verified()) {
    return "every block is right";
  }
  if (verdict.last.mismatch) {
    return "the LUN is not right";
  }
  const std::string so_far =
      fmt::format("{} of {} passes were done, {} bytes compared and right", verdict.passes_done,
                  verdict.passes, verdict.compared_bytes);
  return verdict.last.errors() == 0 && verdict.interrupted
             ? fmt::format("interrupted, and not verified: {}", so_far)
             : fmt::format("not verified, as requests have failed or were not answered: {}",
                           so_far);
}

nlohmann::json verdict_json(const LunexVerdict& verdict) {
  const LunexJobResult& last = verdict.last;
  nlohmann::json json = {{"verified", verdict.verified()},
                         {"passes", verdict.passes},
                         {"passes_done", verdict.passes_done},
                         {"written_bytes", verdict.written_bytes},
                         {"compared_bytes", verdict.compared_bytes},
                         {"interrupted", verdict.interrupted},
                         {"errors", last.errors()},
                         {"failed", last.failed},
                         {"unanswered", last.unanswered},
                         {"unanswered_longest_ns", last.longest_unanswered.count()},
                         {"first_error", last.first_error}};
  json["mismatch"] = last.mismatch ? mismatch_json(*last.mismatch) : nlohmann::json();
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
