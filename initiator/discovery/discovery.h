// SendTargets discovery (RFC 7143 appendix C) for who may wait: a DiscoverySession on a reactor of
// its own. Blocks: never on a reactor's thread; several at once are fine.
#pragma once

#include "base/result.h"
#include "initiator/discovery/discovery_session.h"

namespace iscsi_blkback {

// Asks one portal for all its targets, within options.timeout. Errors, in sentences: invalid_argument (options),
// timed_out, unavailable (no connection, or it was lost), permission_denied (CHAP), protocol, unsupported (the
// target does not do SendTargets).
[[nodiscard]] Result<Discovery> discover(DiscoveryOptions options);

}  // namespace iscsi_blkback
