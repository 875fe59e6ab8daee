// The number of the domain that we run in, as xenstore tells it (0: dom0, else a driver domain).
// Blocks: before the reactors run, or on the control thread.
#pragma once

#include "base/domain_id.h"
#include "base/result.h"

namespace iscsi_blkback {

// The error is one sentence: no Xen here, xenstored does not run, no permission.
[[nodiscard]] Result<DomainId> read_own_domain();

}  // namespace iscsi_blkback
