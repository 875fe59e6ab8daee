// Comparison: one line of the benchmark's table: a workload on a target, the clients that run it in
// turn, and the goals that our engine has to reach beside them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/client_load.h"

namespace iscsi_blkback {

enum class Client : std::uint8_t {
  engine,
  engine_depth_128,  // the same work at depth 128
  engine_digests,    // the same work with both digests
  libiscsi,
  iscsi_perf,
  qemu_img,
  fio,
  raw,
  // The raw exchange over io_uring.
  raw_uring,
  raw_uring_registered,  // buffers
  raw_uring_zero_copy,   // sends
  raw_uring_registered_zero_copy,
};
[[nodiscard]] const char* to_string(Client client);
// Whether it speaks no iSCSI.
[[nodiscard]] constexpr bool is_raw(Client client) {
  return client >= Client::raw;
}

enum class TargetKind : std::uint8_t { null, null_one_at_a_time, null_latency, tgt };
[[nodiscard]] const char* to_string(TargetKind kind);

enum class Metric : std::uint8_t { cpu, rate, p50, p99, system_calls };

// Our median of each round's ratio to (or difference from) another client, or, with no other client
// (against is the subject itself), our median.
struct Goal {
  Metric metric = Metric::cpu;
  Client against = Client::libiscsi;
  double limit = 0;
  bool at_most = true;
  bool difference = false;  // in microseconds, not a ratio
  Client subject = Client::engine;

  [[nodiscard]] std::string text() const;
};

struct Comparison {
  std::string name;
  TargetKind target = TargetKind::null;
  Workload workload;
  std::vector<Client> clients;
  std::vector<Goal> goals;

  std::map<Client, std::vector<ClientResult>> results;  // one a round

  // Not a number when one of the two clients has no result.
  [[nodiscard]] double measured(const Goal& goal) const;
  [[nodiscard]] double median_of(Client client, Metric metric) const;
};

// The lines of the table, with its goals.
[[nodiscard]] std::vector<Comparison> initiator_comparisons();

[[nodiscard]] double metric_of(const ClientResult& result, Metric metric);

// What the clients of one line did, and then what became of its goals.
[[nodiscard]] std::string details(const Comparison& line);
[[nodiscard]] std::string goal_table(const std::vector<Comparison>& lines);

}  // namespace iscsi_blkback
