#include "tools/lunex/lunex_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace iscsi_blkback {
namespace {

struct RwWord {
  std::string_view word;
  bool reads;
  bool writes;
  bool random;
};

constexpr std::array kRwWords = {
    RwWord{"read", true, false, false},    RwWord{"write", false, true, false},
    RwWord{"randread", true, false, true}, RwWord{"randwrite", false, true, true},
    RwWord{"rw", true, true, false},       RwWord{"readwrite", true, true, false},
    RwWord{"randrw", true, true, true},
};

struct TimeUnit {
  std::string_view suffix;
  double seconds;
};

constexpr std::array kTimeUnits = {TimeUnit{"", 1}, TimeUnit{"s", 1}, TimeUnit{"ms", 0.001},
                                   TimeUnit{"m", 60}, TimeUnit{"h", 3600}};
constexpr double kMaxSeconds = 1000.0 * 3600;

}  // namespace

Result<std::uint64_t> parse_lunex_offset(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string suffix(end, text.data() + text.size());
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  constexpr std::string_view kLetters = "kmgtp";
  unsigned shift = 0;
  if (!suffix.empty() && kLetters.find(suffix.front()) != std::string_view::npos) {
    shift = 10 * (static_cast<unsigned>(kLetters.find(suffix.front())) + 1);
    suffix.erase(0, 1);
  }
  const bool known = suffix.empty() || suffix == "b" || (shift != 0 && suffix == "ib");
  if (error != std::errc{} || !known ||
      number > std::numeric_limits<std::uint64_t>::max() >> (shift + 1)) {
    return fail(ErrorCode::invalid_argument,
                "must be a number of bytes, with k, m, g or t behind it for powers of 1024");
  }
  return number << shift;
}

Result<std::uint64_t> parse_lunex_size(std::string_view text) {
  auto bytes = parse_lunex_offset(text);
  if (!bytes || *bytes == 0) {
    return fail(
        ErrorCode::invalid_argument,
        "must be a number of bytes above 0, with k, m, g or t behind it for powers of 1024");
  }
  return bytes;
}

Result<Duration> parse_lunex_time(std::string_view text) {
  // strtod depends on the locale, and from_chars for double is not in every library.
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view suffix = text.substr(digits);
  std::uint64_t whole = 0;
  std::string_view number = text.substr(0, digits);
  const std::size_t point = std::min(number.find('.'), number.size());
  const std::string_view decimals =
      point == number.size() ? std::string_view() : number.substr(point + 1);
  const auto parsed = std::from_chars(number.data(), number.data() + point, whole);
  double value = static_cast<double>(whole);
  double weight = 0.1;
  for (const char digit : decimals) {
    value += (digit - '0') * weight;
    weight /= 10;
  }
  const auto* unit = std::find_if(kTimeUnits.begin(), kTimeUnits.end(),
                                  [&](const TimeUnit& known) { return known.suffix == suffix; });
  const bool wrong = parsed.ec != std::errc{} || unit == kTimeUnits.end() ||
                     decimals.find('.') != std::string_view::npos;
  const double seconds = wrong ? 0 : value * unit->seconds;
  if (wrong || seconds < 0.001 || seconds > kMaxSeconds) {
    return fail(ErrorCode::invalid_argument,
                "must be a time of at least 1 ms, in seconds or with ms, s, m or h behind it");
  }
  return Duration(static_cast<Duration::rep>(seconds * 1e9));
}

Result<void> parse_lunex_rw(std::string_view text, LunexJobOptions& options) {
  const auto* found = std::find_if(kRwWords.begin(), kRwWords.end(),
                                   [&](const RwWord& known) { return known.word == text; });
  if (found == kRwWords.end()) {
    return fail(ErrorCode::invalid_argument,
                "must be read, write, randread, randwrite, rw or randrw");
  }
  options.reads = found->reads;
  options.writes = found->writes;
  options.random = found->random;
  return {};
}

}  // namespace iscsi_blkback
