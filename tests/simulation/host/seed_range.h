// "17" or "1-1000".
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace iscsi_blkback {

struct SeedRange {
  std::uint64_t first = 1;
  std::uint64_t last = 1;
};

[[nodiscard]] inline std::optional<SeedRange> parse_seed_range(std::string_view text) {
  SeedRange range;
  const char* const end = text.data() + text.size();
  std::from_chars_result parsed = std::from_chars(text.data(), end, range.first);
  range.last = range.first;
  if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '-') {
    parsed = std::from_chars(parsed.ptr + 1, end, range.last);
  }
  const bool whole = parsed.ec == std::errc() && parsed.ptr == end && range.first <= range.last;
  return whole ? std::optional(range) : std::nullopt;
}

}  // namespace iscsi_blkback
