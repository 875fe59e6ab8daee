#include "initiator/scsi/target_port_groups.h"

#include <algorithm>

#include "base/byte_order.h"

namespace iscsi_blkback {

const char* to_string(AccessState state) {
  switch (state) {
    case AccessState::active_optimized:
      return "active/optimized";
    case AccessState::active_non_optimized:
      return "active/non-optimized";
    case AccessState::standby:
      return "standby";
    case AccessState::unavailable:
      return "unavailable";
    case AccessState::block_dependent:
      return "logical block dependent";
    case AccessState::offline:
      return "offline";
    case AccessState::transitioning:
      return "transitioning";
  }
  return "unknown";
}

Result<TargetPortGroups> parse_target_port_groups(std::span<const std::byte> bytes) {
  const auto cut_off = [] {
    return fail(ErrorCode::protocol, "the REPORT TARGET PORT GROUPS data is cut off");
  };
  if (bytes.size() < 4) {
    return cut_off();
  }
  const std::size_t length = load_be32(bytes.data());
  if (length > bytes.size() - 4) {
    return cut_off();
  }
  std::span<const std::byte> rest = bytes.subspan(4, length);
  const auto u8 = [&rest](std::size_t at) { return std::to_integer<std::uint8_t>(rest[at]); };
  TargetPortGroups result;
  // Extended header: format 1 in bits 4 to 6. In the other format these bits are a group's.
  if (rest.size() >= 4 && (u8(0) & 0x70) == 0x10) {
    result.implicit_transition_seconds = u8(1);
    rest = rest.subspan(4);
  }
  while (!rest.empty()) {
    if (rest.size() < 8) {
      return cut_off();
    }
    TargetPortGroup group;
    group.preferred = (u8(0) & 0x80) != 0;
    group.state = static_cast<AccessState>(u8(0) & 0x0f);
    group.supported_states = u8(1);
    group.tag = load_be16(rest.data() + 2);
    group.status_code = u8(5);
    const std::size_t ports = u8(7);
    rest = rest.subspan(8);
    if (rest.size() < ports * 4) {
      return cut_off();
    }
    for (std::size_t port = 0; port < ports; ++port) {
      group.ports.push_back(load_be16(rest.data() + port * 4 + 2));
    }
    rest = rest.subspan(ports * 4);
    result.groups.push_back(std::move(group));
  }
  return result;
}

void encode_set_target_port_groups_list(std::span<const SetTargetPortGroup> groups,
                                        std::span<std::byte> list) {
  ISCSI_BLKBACK_ASSERT(list.size() >= set_target_port_groups_list_bytes(groups.size()));
  store_be32(list.data(), 0);
  std::byte* descriptor = list.data() + 4;
  for (const SetTargetPortGroup& group : groups) {
    descriptor[0] = static_cast<std::byte>(group.state);
    descriptor[1] = std::byte{0};
    store_be16(descriptor + 2, group.tag);
    descriptor += 4;
  }
}

}  // namespace iscsi_blkback
