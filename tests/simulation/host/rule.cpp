#include "tests/simulation/host/rule.h"

namespace iscsi_blkback {
namespace {

constexpr std::string_view kNames[kRules] = {
    "data",
    "ring",
    "error",
    "sent_after_suspend",
    "sent_after_close",
    "given_away",
    "suspend_unnoticed",
    "foreign_reset",
    "foreign_login",
    "needless_wait",
    "hang",
    "left_over",
    "protocol",
    "crash",
};

}  // namespace

std::string_view to_string(Rule rule) {
  return kNames[static_cast<std::uint8_t>(rule)];
}

std::optional<Rule> rule_named(std::string_view name) {
  for (std::uint8_t number = 0; number < kRules; ++number) {
    if (kNames[number] == name) {
      return static_cast<Rule>(number);
    }
  }
  return std::nullopt;
}

}  // namespace iscsi_blkback
