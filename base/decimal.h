// Decimal numbers out of text that somebody else wrote (xenstore values, file names, URLs).
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
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

// A number of seconds, decimals allowed ("2.5"), to the millisecond; digits on both sides of a
// point. Not longer than 2^32 seconds.
[[nodiscard]] inline std::optional<std::chrono::milliseconds> parse_decimal_seconds(
    std::string_view text) {
  const std::size_t point = text.find('.');
  const auto whole = parse_decimal<std::uint32_t>(text.substr(0, point));
  if (!whole) {
    return std::nullopt;
  }
  const std::chrono::milliseconds seconds = std::chrono::seconds(*whole);
  if (point == std::string_view::npos) {
    return seconds;
  }
  const std::string_view decimals = text.substr(point + 1);
  if (decimals.empty() || decimals.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  constexpr std::size_t kDigits = 3;  // of a millisecond; further ones round
  std::uint32_t milliseconds = 0;
  for (std::size_t at = 0; at < kDigits + 1; ++at) {
    const char digit = at < decimals.size() ? decimals[at] : '0';
    milliseconds = at < kDigits ? milliseconds * 10 + static_cast<std::uint32_t>(digit - '0')
                                : milliseconds + (digit >= '5' ? 1 : 0);
  }
  return seconds + std::chrono::milliseconds(milliseconds);
}

}  // namespace iscsi_blkback
