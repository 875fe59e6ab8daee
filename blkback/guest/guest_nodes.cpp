#include "blkback/guest/guest_nodes.h"

#include <utility>

#include "base/decimal.h"
#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {

Result<std::vector<XenbusNodeId>> list_guest_nodes(XenStore& store, DomainId own_domain,
                                                   BackendKind kind, DomainId guest) {
  std::vector<XenbusNodeId> nodes;
  auto children = store.list(backend_guest_path(own_domain, kind, guest));
  if (!children) {
    if (children.error().code != ErrorCode::not_found) {
      return tl::unexpected(children.error());
    }
    return nodes;
  }
  for (const std::string& child : *children) {
    if (const auto device_id = parse_decimal<std::uint32_t>(child)) {
      nodes.push_back(XenbusNodeId{kind, own_domain, guest, *device_id});
    }
  }
  return nodes;
}

Result<std::optional<GuestNode>> read_disk_of_ours(XenStoreAccess& store, const XenbusNodeId& id) {
  const XenbusNode node(id);
  auto description = node.read_description(store);
  if (!description) {
    return tl::unexpected(description.error());
  }
  if (!is_iscsi_params(description->params)) {
    return std::nullopt;
  }
  auto states = node.read_states(store, description->frontend_path);
  if (!states) {
    return tl::unexpected(states.error());
  }
  const Adoption adopted = adoption(states->backend, states->frontend, states->online);
  if (adopted == Adoption::no) {
    return std::nullopt;
  }
  return GuestNode{id, std::move(*description), adopted == Adoption::while_guest_runs};
}

bool is_about_the_node(ErrorCode code) {
  return code == ErrorCode::not_found || code == ErrorCode::invalid_argument ||
         code == ErrorCode::permission_denied;
}

}  // namespace iscsi_blkback
