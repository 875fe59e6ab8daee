// Words of lunex's command line, which are fio's. Pure functions; errors are one sentence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "tools/lunex/lunex_job.h"

namespace iscsi_blkback {

// "4096", "4k", "64K", "1m", "10GiB": the letters stand for powers of 1024, as in fio. Not 0.
[[nodiscard]] Result<std::uint64_t> parse_lunex_size(std::string_view text);
// The same, or 0.
[[nodiscard]] Result<std::uint64_t> parse_lunex_offset(std::string_view text);

// "10", "0.5", "90s", "500ms", "2m", "1h". Not 0, at most a thousand hours.
[[nodiscard]] Result<Duration> parse_lunex_time(std::string_view text);

// read, write, randread, randwrite, rw (readwrite), randrw: sets reads, writes and random.
[[nodiscard]] Result<void> parse_lunex_rw(std::string_view text, LunexJobOptions& options);

}  // namespace iscsi_blkback
