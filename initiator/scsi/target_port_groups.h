// Target port groups (SPC-4 5.15, 6.37, 6.45): which ports serve a LUN how well (ALUA). Parsed with
// bounds from what really arrived; the list of SET TARGET PORT GROUPS. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

enum class AccessState : std::uint8_t {
  active_optimized = 0x0,
  active_non_optimized = 0x1,
  standby = 0x2,
  unavailable = 0x3,
  block_dependent = 0x4,
  offline = 0xe,
  transitioning = 0xf,
};

[[nodiscard]] const char* to_string(AccessState state);  // "unknown" for the reserved values

struct TargetPortGroup {
  std::uint16_t tag = 0;
  AccessState state{};
  bool preferred = false;
  std::uint8_t supported_states = 0;      // bits as in the descriptor: 0x01 active/optimized ...
  std::uint8_t status_code = 0;           // 1: changed by SET TARGET PORT GROUPS, 2: by the target
  std::vector<std::uint16_t> ports = {};  // relative target port identifiers
};

struct TargetPortGroups {
  std::vector<TargetPortGroup> groups;
  std::uint8_t implicit_transition_seconds = 0;  // 0: not told
};

// Descriptors that are cut off are an error: half a group is another group.
[[nodiscard]] Result<TargetPortGroups> parse_target_port_groups(std::span<const std::byte> bytes);

struct SetTargetPortGroup {
  std::uint16_t tag = 0;
  AccessState state{};
};
[[nodiscard]] constexpr std::size_t set_target_port_groups_list_bytes(std::size_t groups) {
  return 4 + groups * 4;
}
void encode_set_target_port_groups_list(std::span<const SetTargetPortGroup> groups,
                                        std::span<std::byte> list);

}  // namespace iscsi_blkback
