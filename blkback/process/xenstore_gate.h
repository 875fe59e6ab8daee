// XenStoreGate: what the process of a guest may ask xenstored for. The helper of the process (guest_helper.h)
// lets only that pass: its connection to xenstored may do everything in dom0's tree, and whoever writes there
// what xl goes by (a disk's hotplug script) has root's rights. Pure.
//
// Readable and watchable are the guest's backend nodes of our kinds and the folder of its frontends; what
// tells whether the guest is there; its kind. Written and removed are only the keys that a backend
// publishes, below the guest's backend nodes; a driver domain removes a whole node, too. Two of them name
// something of the host's to others, who open it: of these only the texts pass that cannot name anything else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/domain_id.h"

namespace iscsi_blkback {

class XenStoreGate {
 public:
  XenStoreGate(DomainId own_domain, DomainId guest, std::string run_directory)
      : own_domain_(own_domain), guest_(guest), run_directory_(std::move(run_directory)) {}

  [[nodiscard]] bool may_read(std::string_view path) const;  // or list
  [[nodiscard]] bool may_watch(std::string_view path) const;
  [[nodiscard]] bool may_write(std::string_view path, std::string_view value) const;
  [[nodiscard]] bool may_remove(std::string_view path) const;

  // One message to xenstored (docs/misc/xenstore.txt), as its header says and without it.
  [[nodiscard]] bool lets_pass(std::uint32_t type, std::string_view payload) const;

 private:
  // What stands behind the folder of one of the guest's backend nodes, "51712" or "51712/state"; empty: path
  // is in none.
  [[nodiscard]] std::string_view in_backend(std::string_view path) const;
  [[nodiscard]] bool is_of_guest(std::string_view path) const;
  [[nodiscard]] bool is_published(std::string_view path) const;

  DomainId own_domain_;
  DomainId guest_;
  std::string run_directory_;
};

}  // namespace iscsi_blkback
