#include "initiator/login/target_address.h"

#include <fmt/format.h>

#include <utility>

#include "initiator/login/portal_text.h"

namespace iscsi_blkback {

Result<TargetAddress> parse_target_address(const std::string& text) {
  TargetAddress address;
  auto portal = parse_portal_text(text, UnbracketedPort::take);
  if (!portal) {
    return fail(ErrorCode::protocol, fmt::format("{} is not a target address", text));
  }
  address.host = std::move(portal->host);
  address.port = portal->port.value_or(address.port);
  address.group_tag = portal->group_tag;
  return address;
}

}  // namespace iscsi_blkback
