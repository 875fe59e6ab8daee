// The number of a Xen domain (domid_t of xen/include/public/xen.h). A value; any thread.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

using DomainId = std::uint16_t;

}  // namespace iscsi_blkback
