// Rule: what must hold in every run of the host simulation. A failure names the rule that it
// breaks: a plan that is shrunk must go on breaking the same one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace iscsi_blkback {

enum class Rule : std::uint8_t {
  data,                // a sector holds the last acknowledged write, or one that is still open
  ring,                // a request is answered once, with its own id; pages are given back before
  error,               // no request fails where nothing allows it
  sent_after_suspend,  // no write leaves a process that knows that its guest is suspended
  sent_after_close,    // ... or has closed the disk
  given_away,          // a LUN is no other guest's as long as its own has not ended
  suspend_unnoticed,   // a process notices that its guest is suspended
  foreign_reset,       // LOGICAL UNIT RESET only for LUNs that nobody else uses
  foreign_login,       // a LUN is used with its own name and secret only
  needless_wait,       // where nothing is wrong and nobody was before, nothing waits
  hang,                // when nothing is wrong any more, every guest is served
  left_over,           // when the last guest has gone, nothing is left
  protocol,            // the initiator follows RFC 7143
  crash,               // the run ends
};
inline constexpr std::uint8_t kRules = static_cast<std::uint8_t>(Rule::crash) + 1;

[[nodiscard]] std::string_view to_string(Rule rule);
[[nodiscard]] std::optional<Rule> rule_named(std::string_view name);

struct RuleFailure {
  Rule rule = Rule::crash;
  std::int64_t at_us = 0;
  std::string what;
};

}  // namespace iscsi_blkback
