// PathRule: "portal 10.0.1.* 50", a number for the paths that a pattern fits; the first rule that
// fits counts. What weightedpath's prio_args are in multipath.conf, with the things that a path has
// here. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

// How a path can be told from others. Texts as in multipath -ll.
struct PathPlace {
  std::string portal;   // as configured
  std::string address;  // numeric, with port
  std::string interface_name;
  std::string target_name;
  std::string portal_group = {};  // the target portal group tag in decimal; empty: not known yet
};

struct PathRule {
  enum class Key : std::uint8_t { portal, interface, target, portal_group };
  Key key = Key::portal;
  std::string pattern;
  std::uint32_t value = 0;

  bool operator==(const PathRule&) const = default;
};

// Of "HOST:PORT" or "[ADDRESS]:PORT".
[[nodiscard]] std::string_view host_of(std::string_view portal);

// * stands for any text, ? for one character.
[[nodiscard]] bool matches_pattern(std::string_view pattern, std::string_view text);
// multipath.conf has regular expressions there, which would fit nothing here: refused by a sentence
// that says how they are written as patterns. Names like a target's or an address have dots of
// their own: then ".*" is a mark of a regular expression at the beginning only.
[[nodiscard]] Result<void> check_pattern(std::string_view pattern, bool has_dots);

// "KEY PATTERN NUMBER" with portal, interface or target, or "tpgt TAG NUMBER"; 0 to most. The error
// is a sentence that begins with the rule.
[[nodiscard]] Result<PathRule> parse_path_rule(std::string_view text, std::uint32_t most);
// A portal fits with or without its port, as configured or numeric, however it is written.
[[nodiscard]] bool fits(const PathRule& rule, const PathPlace& place);
[[nodiscard]] std::uint32_t value_for(const PathPlace& place, std::span<const PathRule> rules,
                                      std::uint32_t otherwise);

}  // namespace iscsi_blkback
