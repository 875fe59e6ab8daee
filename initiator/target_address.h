// TargetAddress: where a target says that it can be reached, in SendTargets and in redirects (RFC
// 7143 13.8). Pure.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

struct TargetAddress {
  std::string host;  // a name or a numeric address, without brackets
  std::uint16_t port = 3260;
  std::uint16_t group_tag = 0;  // 0 when it has none
};

// "192.0.2.1:3260,1", "[2001:db8::1]:3260,1", "san.example,2", "san.example". Characters that no
// host's name or address has are refused.
[[nodiscard]] Result<TargetAddress> parse_target_address(const std::string& text);

}  // namespace iscsi_blkback
