// SendTargets discovery (RFC 7143 appendix C) for who may wait: a DiscoverySession on a reactor of
// its own. Blocks: never on a reactor's thread; several at once are fine.
#pragma once

#include "base/result.h"
#include "initiator/discovery/discovery_session.h"

namespace iscsi_blkback {

// Asks one portal for all its targets, within options.timeout.
[[nodiscard]] Result<Discovery> discover(DiscoveryOptions options);

}  // namespace iscsi_blkback
