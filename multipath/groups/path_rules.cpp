#include "multipath/groups/path_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/ascii_case.h"
#include "base/byte_stream.h"
#include "base/decimal.h"
#include "initiator/login/portal_text.h"

namespace iscsi_blkback {
namespace {

// pattern: as portal_pattern() has made it. Neither names nor addresses know letters by their case.
bool matches_portal(std::string_view pattern, std::string_view portal) {
  const std::string text = lower(portal);
  return matches_pattern(pattern, text) || matches_pattern(pattern, host_of(text));
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
  const std::size_t any = pattern.find(".*");
  if (pattern.find_first_of("^$()|[]{}+\\") == std::string_view::npos &&
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

namespace {

// A portal, or a pattern for portals, as it is written wherever portals are: as what PathPlace has
// can be compared with.
Result<std::string> portal_pattern(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return fail(ErrorCode::invalid_argument, fmt::format("\"{}\": {}", text, why));
  };
  const bool bracketed = text.starts_with('[');
  const std::size_t end = std::min(text.find(']'), text.size());
  const bool may_be_ipv6 = bracketed && text.substr(0, end).find(':') != text.npos;
  std::string unbracketed(text);
  if (may_be_ipv6) {
    unbracketed.erase(end, 1);
    unbracketed.erase(0, 1);
  }
  const bool has_wildcards = text.find_first_of("*?") != text.npos;
  if (has_wildcards || !bracketed) {
    if (!check_pattern(unbracketed, true)) {
      return tl::unexpected(check_pattern(text, true).error());
    }
  }
  if (!has_wildcards) {
    const auto portal = parse_portal_text(text, UnbracketedPort::refuse);
    if (!portal) {
      return wrong(portal.error().message);
    }
    const std::size_t zone = std::min(portal->host.find('%'), portal->host.size());
    const auto address = SocketAddress::parse(portal->host.substr(0, zone), 0);
    const std::string host =
        lower(address ? address->host() + portal->host.substr(zone) : portal->host);
    return !portal->port                         ? host
           : host.find(':') != std::string::npos ? fmt::format("[{}]:{}", host, *portal->port)
                                                 : fmt::format("{}:{}", host, *portal->port);
  }
  if (text.find(',') != text.npos) {
    return wrong("a pattern for portals has no group tag; \"tpgt TAG NUMBER\" is a rule for those");
  }
  if (bracketed && end == text.size()) {
    return wrong("a portal's IPv6 address has no closing bracket");
  }
  if (bracketed && end + 1 != text.size() && text[end + 1] != ':') {
    return wrong("after a portal's IPv6 address only :PORT may follow");
  }
  return lower(bracketed && end + 1 == text.size() ? std::string_view(unbracketed) : text);
}

}  // namespace

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
  if (key == "portal") {
    auto portal = portal_pattern(pattern);
    if (!portal) {
      return tl::unexpected(portal.error());
    }
    rule.pattern = std::move(*portal);
  } else if (auto checked = check_pattern(pattern, true); !checked) {
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
