// ResolverPool: a PortalResolver, which blocks, behind LookupThreads, for a guest's process. An answer that
// does not come within kLookupPatience is an error, so that the disk says so and asks again later; it hears
// then of the same look-up, which goes on, as do all others who ask the same. Control thread.
#pragma once

#include <chrono>
#include <memory>

#include "base/reactor.h"
#include "multipath/attach/path_discovery.h"

namespace iscsi_blkback {

// Longer than the system's resolver takes with its usual two attempts at three dead servers, and
// than a discovery with the longest login_timeout that makes sense.
inline constexpr std::chrono::seconds kLookupPatience{60};

// directory: used by threads that may be left behind, and so it outlives the process.
[[nodiscard]] std::unique_ptr<AsyncPortalResolver> make_resolver_pool(
    Reactor& control, PortalResolver& directory,
    std::chrono::milliseconds patience = kLookupPatience);

}  // namespace iscsi_blkback
