// What lunex prints about a run: text for people, JSON for programs (with fio's units: latencies in
// nanoseconds). Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/printable_text.h"
#include "multipath/multipath_device.h"
#include "tools/lunex_job.h"

namespace iscsi_blkback {

// A finished job and what it cost this process.
struct LunexMeasure {
  LunexJobResult result;
  std::chrono::microseconds client_cpu{};  // user and system time, all threads
  std::uint64_t system_calls = 0;          // of the reactor
  std::uint64_t connection_losses = 0;
  bool interrupted = false;
};

// What was run, as the command line said it.
struct LunexRunWords {
  std::string rw;
  std::uint32_t block_bytes = 0;
  std::uint32_t depth = 0;
};

[[nodiscard]] PrintableLines run_text(const LunexRunWords& words, const MultipathSnapshot& disk,
                                      const LunexMeasure& measure);
[[nodiscard]] nlohmann::json run_json(const LunexRunWords& words, const MultipathSnapshot& disk,
                                      const LunexMeasure& measure);
[[nodiscard]] nlohmann::json mismatch_json(const PatternMismatch& mismatch);

}  // namespace iscsi_blkback
