// How much of what guests, targets and other hosts can cause is logged: each kind of message about
// each disk by itself, and all of a guest's together, so that a guest that cycles its handshake
// neither fills the host's disk (XSA-180) nor hides another disk's trouble for long. Values; each limiter belongs to
// one thread.
#pragma once

#include <chrono>

#include "base/log.h"

namespace iscsi_blkback {

inline constexpr LogLimit kMessageLimit{5, std::chrono::minutes(1)};
inline constexpr LogLimit kGuestLogLimit{100, std::chrono::seconds(20)};

// Of a guest's process, what its targets cause included: about 2000 messages, and as many an hour.
inline constexpr LogBudget kGuestLogBudget{256 * 1024, 256 * 1024};
// Of the service, for all guests.
inline constexpr LogBudget kServiceLogBudget{1024 * 1024, 1024 * 1024};

}  // namespace iscsi_blkback
