#include "blkback/xen/device_requests.h"

#include <sys/ioctl.h>

extern "C" {
#include <xen/xen.h>
// Behind the one above, whose types they take.
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
}

namespace iscsi_blkback {

std::vector<std::uint32_t> xen_device_requests() {
  // What is asked most often first.
  return {IOCTL_EVTCHN_NOTIFY,          IOCTL_GNTDEV_GRANT_COPY,
          IOCTL_GNTDEV_MAP_GRANT_REF,   IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR,
          IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_EVTCHN_BIND_INTERDOMAIN,
          IOCTL_EVTCHN_UNBIND};
}

}  // namespace iscsi_blkback
