#include "multipath/path_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/decimal.h"

namespace iscsi_blkback {
namespace {

bool matches_portal(std::string_view pattern, std::string_view portal) {
  return matches_pattern(pattern, portal) || matches_pattern(pattern, host_of(portal));
}

std::string_view next_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(word.size());
  return word;
}

}  // namespace

std::string_view host_of(std::string_view portal) {
  const std::string_view host = portal.substr(0, portal.rfind(':'));
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

// Patterns and texts are short, and a * is tried again only from the last one: linear enough.
bool matches_pattern(std::string_view pattern, std::string_view text) {
  std::size_t at = 0;
  std::size_t star = std::string_view::npos;
  std::size_t star_text = 0;
  for (std::size_t index = 0; index < text.size();) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      star_text = index;
    } else if (at < pattern.size() && (pattern[at] == '?' || pattern[at] == text[index])) {
      ++at;
      ++index;
    } else if (star != std::string_view::npos) {
      at = star + 1;
      index = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

namespace {

// "^MD3" is "MD3*". Where there is no such thing: empty.
std::string as_pattern(std::string_view expression) {
  const bool begins = expression.starts_with('^');
  const bool ends = expression.ends_with('$');
  const std::string_view body =
      expression.substr(begins ? 1 : 0, expression.size() - (begins ? 1 : 0) - (ends ? 1 : 0));
  if (body.find_first_of("^$()|[]{}+\\") != std::string_view::npos) {
    return {};
  }
  std::string pattern = begins ? "" : "*";
  for (std::size_t at = 0; at < body.size(); ++at) {
    const bool any = body[at] == '.' && body.substr(at + 1).starts_with('*');
    pattern.push_back(any ? '*' : body[at] == '.' ? '?' : body[at]);
    at += any ? 1 : 0;
  }
  pattern += ends ? "" : "*";
  pattern.erase(std::unique(pattern.begin(), pattern.end(),
                            [](char one, char other) { return one == '*' && other == '*'; }),
                pattern.end());
  return pattern;
}

}  // namespace

Result<void> check_pattern(std::string_view pattern, bool has_dots) {
  // "[2001:db8::1]:3260" is a portal.
  const std::string_view marks = pattern.starts_with('[') && pattern.find("]:") != pattern.npos
                                     ? std::string_view("^$()|{}+\\")
                                     : std::string_view("^$()|[]{}+\\");
  const std::size_t any = pattern.find(".*");
  if (pattern.find_first_of(marks) == std::string_view::npos &&
      (any == std::string_view::npos || (has_dots && any != 0))) {
    return {};
  }
  const std::string shell = as_pattern(pattern);
  return fail(
      ErrorCode::invalid_argument,
      fmt::format("\"{}\" is a regular expression, but patterns are wanted, where * stands for any "
                  "text and ? for one character: {}",
                  pattern,
                  shell.empty() ? std::string("write one for each of the alternatives")
                                : fmt::format("write \"{}\"", shell)));
}

Result<PathRule> parse_path_rule(std::string_view text, std::uint32_t most) {
  std::string_view rest = text;
  const std::string_view key = next_word(rest);
  const std::string_view pattern = next_word(rest);
  const std::string_view number = next_word(rest);
  PathRule rule;
  rule.pattern = pattern;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), rule.value);
  const bool of_group = key == "tpgt";
  const bool known = key == "portal" || key == "interface" || key == "target" || of_group;
  if (of_group && !parse_decimal<std::uint16_t>(pattern)) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" is not \"tpgt TAG NUMBER\" with the tag of a target portal "
                            "group from 0 to 65535 and a number from 0 to {}",
                            text, most));
  }
  if (!known || pattern.empty() || number.empty() || error != std::errc() ||
      end != number.data() + number.size() || rule.value > most ||
      rest.find_first_not_of(' ') != std::string_view::npos) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" is not \"portal PATTERN NUMBER\", \"interface PATTERN NUMBER\" "
                            "or \"target PATTERN NUMBER\" with a number from 0 to {}",
                            text, most));
  }
  if (auto checked = check_pattern(pattern, true); !checked) {
    return tl::unexpected(checked.error());
  }
  rule.key = key == "portal"      ? PathRule::Key::portal
             : key == "interface" ? PathRule::Key::interface
                  : key == "target"    ? PathRule::Key::target
                                  : PathRule::Key::portal_group;
  return rule;
}

bool fits(const PathRule& rule, const PathPlace& place) {
  switch (rule.key) {
    case PathRule::Key::portal:
      return matches_portal(rule.pattern, place.portal) ||
             matches_portal(rule.pattern, place.address);
    case PathRule::Key::interface:
      return matches_pattern(rule.pattern, place.interface_name);
    case PathRule::Key::target:
      return matches_pattern(rule.pattern, place.target_name);
    case PathRule::Key::portal_group:
      return rule.pattern == place.portal_group;
  }
  return false;
}

std::uint32_t value_for(const PathPlace& place, std::span<const PathRule> rules,
                        std::uint32_t otherwise) {
  const auto found = std::find_if(rules.begin(), rules.end(),
                                  [&](const PathRule& rule) { return fits(rule, place); });
  return found == rules.end() ? otherwise : found->value;
}

}  // namespace iscsi_blkback
