#include "multipath/fencing/barrier_nexus.h"

#include <charconv>
#include <string_view>

namespace iscsi_blkback {
namespace {

using barrier_layout::Nexus;

std::optional<SocketAddress> parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data() + colon + 1, end, port).ptr != end) {
    return std::nullopt;
  }
  const Result<SocketAddress> address = SocketAddress::parse(std::string(host), port);
  return address ? std::optional(*address) : std::nullopt;
}

}  // namespace

std::optional<BarrierNexus> read_nexus(Nexus& stored) {
  if (SharedField(stored.in_use).load() != 1) {
    return std::nullopt;
  }
  const auto portal = parse_address(text_of(stored.portal));
  const auto peer = parse_address(text_of(stored.peer));
  if (!portal || !peer) {
    return std::nullopt;
  }
  BarrierNexus nexus;
  nexus.isid = stored.isid;
  nexus.session_number = stored.session_number;
  nexus.initiator_name = text_of(stored.initiator_name);
  nexus.target_name = text_of(stored.target_name);
  nexus.portal = *portal;
  nexus.interface_binding = {.name = std::string(text_of(stored.interface_name)),
                             .hardware_address = std::string(text_of(stored.hardware_address)),
                             .address = std::string(text_of(stored.source_address))};
  nexus.login.portal = *peer;
  if (stored.portal_group_known != 0) {
    nexus.login.portal_group = stored.portal_group;
  }
  return nexus;
}

void write_nexus(Nexus& stored, const BarrierNexus& nexus) {
  SharedField(stored.in_use).store(0);
  stored.isid = nexus.isid;
  stored.portal_group_known = nexus.login.portal_group ? 1 : 0;
  stored.portal_group = nexus.login.portal_group.value_or(0);
  stored.session_number = nexus.session_number;
  set_text(stored.initiator_name, nexus.initiator_name);
  set_text(stored.target_name, nexus.target_name);
  set_text(stored.portal, nexus.portal.to_string());
  set_text(stored.peer, nexus.login.portal.to_string());
  set_text(stored.interface_name, nexus.interface_binding.name);
  set_text(stored.source_address, nexus.interface_binding.address);
  set_text(stored.hardware_address, nexus.interface_binding.hardware_address);
  SharedField(stored.in_use).store(1);
}

}  // namespace iscsi_blkback
