// The inquirer of a guest's process: a PortalDirectory, which blocks, behind LookupThreads. An
// answer that does not come within kPatience is an error, so that the disk says so and asks again
// later; it hears then of the same look-up, which goes on, as does everybody else who asks the
// same. Control thread.
#pragma once

#include <chrono>
#include <memory>

#include "base/reactor.h"
#include "multipath/attach/disk_resolver.h"

namespace iscsi_blkback {

// Longer than the system's resolver takes with its usual two attempts at three dead servers, and
// than a discovery with the longest login_timeout that makes sense.
inline constexpr std::chrono::seconds kLookupPatience{60};

// directory: used by threads that may be left behind, and so it outlives the process.
[[nodiscard]] std::unique_ptr<PortalInquirer> make_threaded_inquirer(
    Reactor& control, PortalDirectory& directory,
    std::chrono::milliseconds patience = kLookupPatience);

}  // namespace iscsi_blkback
