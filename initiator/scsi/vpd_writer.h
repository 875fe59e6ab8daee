// The vital product data pages by which a guest can be told which LUN its disk is. They are made of
// the LUN's names and not copied, since a page of the LUN's own is another one through each target
// port (it has the port's designators, too), while a guest's disk is to be the same by whichever
// path it was opened. Pure functions.
//
// Left out is what does not tell LUNs apart (lun_names.h), and what each target may have another
// one of for the same LUN: vendor-specific designators and NAA 3.
//
// Sources: SPC-4 7.8.6 and 7.8.15.
#pragma once

#include <cstddef>
#include <vector>

#include "initiator/scsi/lun_names.h"

namespace iscsi_blkback {

// Windows asks for as many bytes (VPD_MAX_BUFFER_SIZE), and its Xen driver fails the question where
// the page is longer.
inline constexpr std::size_t kMaxWrittenPageBytes = 255;

// Page 0x80, with its header; empty: the LUN has no serial number, or none that fits.
[[nodiscard]] std::vector<std::byte> write_serial_number_page(const LunNames& names);

// Page 0x83, with its header: as many designators as fit, NAA and EUI-64 before others; empty: there
// are none.
[[nodiscard]] std::vector<std::byte> write_designator_page(const LunNames& names);

}  // namespace iscsi_blkback
