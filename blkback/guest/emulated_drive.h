// Which disks of an HVM guest its device model has, too: libxl names them on QEMU's command line,
// and for the kind qdisk QEMU gets the target as it stands in the disk line. Where QEMU knows iSCSI
// (qemu-block-extra), it opens the LUN by itself then, on one path and without our fences. Pure.
#pragma once

#include <cstdint>
#include <string_view>

namespace iscsi_blkback {

// name: the disk's vdev as written ("xvda"). After libxl__build_device_model_args_new and
// libxl__device_disk_dev_number: names of SCSI disks, and of the others disks 0 to 3, whichever
// partition; CD drives 0 to 4; a bare number never. Which disk it is tells the device's number,
// which libxl has made of the name: it reads "d0x3p0", "d010p0" and "d 3p0", too, as scanf("%i")
// does. Disks 4 and 5 with hdtype=ahci are not told apart from those without.
[[nodiscard]] bool is_emulated_drive(std::string_view name, std::uint32_t device_id, bool cdrom);

}  // namespace iscsi_blkback
