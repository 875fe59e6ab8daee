// Whole decimal numbers out of text that somebody else wrote (xenstore values, file names, URLs).
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <type_traits>

namespace iscsi_blkback {

// Digits and nothing else, within Number's range; nullopt otherwise.
template <class Number>
requires std::is_unsigned_v<Number>
[[nodiscard]] std::optional<Number> parse_decimal(std::string_view text) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc{} || stopped_at != end) {
    return std::nullopt;
  }
  return value;
}

}  // namespace iscsi_blkback
