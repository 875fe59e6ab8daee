// Runs iscsi-perf (package libiscsi-bin) for a while: random reads over one session.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

struct IscsiPerfResult {
  double ios_per_second = 0;
  double cpu_us_per_io = 0;  // user and system, the whole process
};

// duration: at least, since it tells its rate once a second only.
[[nodiscard]] Result<IscsiPerfResult> run_iscsi_perf(const std::string& url, std::uint32_t io_bytes,
                                                     std::uint32_t depth,
                                                     std::chrono::milliseconds duration);

}  // namespace iscsi_blkback
