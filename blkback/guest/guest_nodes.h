// A guest's backend nodes in xenstore: which there are, and which of them are disks of ours that
// are to be served. What GuestSupervisor starts a process for and what GuestBackend then takes up is
// the same. Control thread only.
#pragma once

#include <optional>
#include <vector>

#include "base/domain_id.h"
#include "base/result.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

// Of one kind; none where the guest has no folder. The errors are xenstore's only.
[[nodiscard]] Result<std::vector<XenbusNodeId>> list_guest_nodes(XenStore& store,
                                                                 DomainId own_domain,
                                                                 BackendKind kind, DomainId guest);

struct GuestNode {
  XenbusNodeId id;
  DiskDescription description;
  // It is between two handshakes; of a guest that has ended, there is nothing to be done for it.
  bool rests = false;
};

// Nothing: the node is no disk of ours, or over. The error: the node cannot be used (see
// XenbusNode::read_description); or it cannot be read, and is to be asked for again.
[[nodiscard]] Result<std::optional<GuestNode>> read_disk_of_ours(XenStoreAccess& store,
                                                                 const XenbusNodeId& id);

// Whether an error of these, or of any other question about a node, says something about the node.
// Else nothing is known, and the question is to be asked again.
[[nodiscard]] bool is_about_the_node(ErrorCode code);

}  // namespace iscsi_blkback
