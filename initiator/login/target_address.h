// TargetAddress: where a target says that it can be reached, in SendTargets and in redirects (RFC
// 7143 13.8). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

struct TargetAddress {
  std::string host;  // a name or a numeric address, without brackets
  std::uint16_t port = 3260;
  std::optional<std::uint16_t> group_tag = {};

  bool operator==(const TargetAddress&) const = default;
};

// "192.0.2.1:3260,1", "[2001:db8::1]:3260,1", "san.example,2", "san.example"; see portal_text.h.
// Characters that no host's name or address has are refused.
[[nodiscard]] Result<TargetAddress> parse_target_address(const std::string& text);

}  // namespace iscsi_blkback
