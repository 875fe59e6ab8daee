// What lunex prints about a run: text for people, JSON for programs (with fio's units: latencies in
// nanoseconds). Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/printable_text.h"
#include "multipath/multipath_snapshot.h"
#include "tools/lunex/lunex_job.h"

namespace iscsi_blkback {

// A finished job and what it cost this process.
struct LunexMeasure {
  LunexJobResult result;
  std::uint32_t block_bytes = 0;  // as they were used
  std::uint32_t depth = 0;
  MultipathSnapshot disk;                  // when the job had ended
  std::size_t fewest_paths_up = 0;         // at any time of it
  std::chrono::microseconds client_cpu{};  // user and system time, all threads
  std::uint64_t system_calls = 0;          // of the reactor
  std::uint64_t connection_losses = 0;
  bool interrupted = false;  // before it would have ended by itself
};

// What was run, as the command line said it.
struct LunexRunWords {
  std::string rw;
  std::uint32_t block_bytes = 0;
  std::uint32_t depth = 0;
  bool verify = false;
};

// What `lunex verify` has come to.
struct LunexVerdict {
  std::uint32_t passes = 0;  // wanted
  std::uint32_t passes_done = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t compared_bytes = 0;  // and found right
  bool interrupted = false;
  LunexJobResult last;  // the one that ended it

  // Everything that was asked for has been written and found as it was written.
  [[nodiscard]] bool verified() const {
    return passes_done == passes && !interrupted && last.errors() == 0 &&
           compared_bytes == written_bytes;
  }
};

[[nodiscard]] PrintableLines run_text(const LunexRunWords& words, const LunexMeasure& measure);
[[nodiscard]] nlohmann::json run_json(const LunexRunWords& words, const LunexMeasure& measure);
[[nodiscard]] std::string verdict_text(const LunexVerdict& verdict);
[[nodiscard]] nlohmann::json verdict_json(const LunexVerdict& verdict);
[[nodiscard]] nlohmann::json mismatch_json(const PatternMismatch& mismatch);

}  // namespace iscsi_blkback
