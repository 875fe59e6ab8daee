#include "initiator/login/login_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/ascii_case.h"

namespace iscsi_blkback {

std::string_view take_up_to(std::string_view& text, char end) {
  const std::size_t bytes = std::min(text.find(end), text.size());
  const std::string_view taken = text.substr(0, bytes);
  text.remove_prefix(std::min(bytes + 1, text.size()));
  return taken;
}

Result<std::vector<TextPair>> parse_login_text(std::string_view text) {
  std::vector<TextPair> pairs;
  while (!text.empty()) {
    const std::string_view pair = take_up_to(text, '\0');
    if (pair.empty()) {
      continue;  // some targets pad their text with NULs that the length counts
    }
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return fail(ErrorCode::protocol, "the login text holds a pair without a key and '='");
    }
    const TextPair parsed{pair.substr(0, equals), pair.substr(equals + 1)};
    if (parsed.key.size() > kMaxTextKeyBytes || parsed.value.size() > kMaxLargeBinaryBytes) {
      return fail(ErrorCode::protocol,
                  "the login text holds a key of more than 63 or a value of more than 2050 bytes");
    }
    if (std::any_of(pairs.begin(), pairs.end(), [&](const TextPair& other) {
          return other.key == parsed.key && other.value == parsed.value;
        })) {
      continue;
    }
    if (pairs.size() == kMaxTextPairs) {
      return fail(ErrorCode::protocol,
                  fmt::format("the login text holds more than {} keys", kMaxTextPairs));
    }
    pairs.push_back(parsed);
  }
  return pairs;
}

bool is_usable_text(std::string_view text, std::size_t max_bytes, char lowest) {
  return text.size() <= max_bytes && std::none_of(text.begin(), text.end(), [&](char letter) {
           return static_cast<unsigned char>(letter) < static_cast<unsigned char>(lowest) ||
                  letter == 0x7f;
         });
}

bool is_usable_name(std::string_view name) {
  return !name.empty() && is_usable_text(name, kMaxIscsiNameBytes, '!');
}

std::optional<std::uint32_t> parse_text_number(std::string_view value, std::uint32_t low,
                                               std::uint32_t high) {
  int base = 10;
  if (value.starts_with("0x") || value.starts_with("0X")) {
    base = 16;
    value.remove_prefix(2);
  }
  std::uint32_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stopped_at, error] = std::from_chars(value.data(), end, number, base);
  if (error != std::errc{} || stopped_at != end || number < low || number > high) {
    return std::nullopt;
  }
  return number;
}

std::optional<bool> parse_text_boolean(std::string_view value) {
  if (equal_text(value, "Yes")) {
    return true;
  }
  if (equal_text(value, "No")) {
    return false;
  }
  return std::nullopt;
}

void LoginText::add(std::string_view key, std::string_view value) {
  text_.append(key);
  text_.push_back('=');
  text_.append(value);
  text_.push_back('\0');
}

void LoginText::add(std::string_view key, std::uint32_t value) {
  add(key, fmt::to_string(value));
}

void LoginText::add(std::string_view key, bool value) {
  add(key, std::string_view{value ? "Yes" : "No"});
}

}  // namespace iscsi_blkback
