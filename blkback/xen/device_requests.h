// What a process asks of Xen's devices once it has opened them: the requests (ioctl(2)) of /dev/xen/gntdev
// and /dev/xen/evtchn that GrantTable and EventChannels make, and none of privcmd's. Constants: any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace iscsi_blkback {

[[nodiscard]] std::vector<std::uint32_t> xen_device_requests();

}  // namespace iscsi_blkback
