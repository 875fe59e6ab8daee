// The inquirer of a guest's process: a PortalDirectory, which blocks, behind threads. See
// DiskResolver for their bounds.
#pragma once

#include <memory>

#include "base/reactor.h"
#include "blkback/disk_resolver.h"

namespace iscsi_blkback {

[[nodiscard]] std::unique_ptr<PortalInquirer> make_threaded_inquirer(Reactor& control,
                                                                     PortalDirectory& directory);

}  // namespace iscsi_blkback
