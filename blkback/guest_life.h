// GuestLife: whether a guest still runs, and whether it is suspended, as the hypervisor tells, or
// xenstore where that may not be asked. Control thread only.
#pragma once

#include "base/result.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

struct GuestLife {
  bool runs = true;        // or may still come back as it is
  bool suspended = false;  // goes on here later, or elsewhere (migration, save)
};

// domains: null when they may not be asked.
[[nodiscard]] Result<GuestLife> look_at_guest(DomainInfo* domains, XenStore& store, DomainId guest);

}  // namespace iscsi_blkback
