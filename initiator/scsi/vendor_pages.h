// What controllers of active/passive arrays tell in pages of their own: RDAC (LSI/NetApp E-Series:
// IBM DS4000/DS3300, Dell MD3xxxi) in VPD pages 0xC2 and 0xC9, EMC CLARiiON in VPD page 0xC0; and
// the mode page 0x2C that moves a LUN to another RDAC controller. Parsed with bounds from what
// really arrived. Pure functions.
//
// Errors: protocol, for what is not that page.
//
// Layouts as Linux (scsi_dh_rdac.c) and multipath-tools (prioritizers/rdac.c, emc.c) have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "initiator/scsi/target_port_groups.h"

namespace iscsi_blkback {

// VPD page 0xC9 of the controller that was asked.
struct RdacVolumeAccess {
  bool owned = false;               // this controller serves the LUN
  bool automatic_transfer = false;  // AVT: I/O here makes this controller the owner
  bool shared = false;              // IOSHIP: both controllers serve it
  std::uint8_t preference = 0;      // 1: preferred controller, 2: the other one
  // Of the target port groups here and there, where the page tells them.
  std::optional<AccessState> state = {};
  std::optional<AccessState> other_state = {};

  bool operator==(const RdacVolumeAccess&) const = default;
};
[[nodiscard]] Result<RdacVolumeAccess> parse_rdac_volume_access(std::span<const std::byte> bytes);

// VPD page 0xC2: the number of LUNs per host that the controller can do. More than 31 need the long
// form of mode page 0x2C.
[[nodiscard]] Result<std::uint8_t> parse_rdac_max_lun(std::span<const std::byte> bytes);

// VPD page 0xC0.
struct EmcUnitPath {
  std::uint8_t lun_state = 0;  // 0: unbound, 1: bound, 2: owned by this service processor
  bool default_owner = false;  // this service processor is the LUN's default one

  bool operator==(const EmcUnitPath&) const = default;
};
[[nodiscard]] Result<EmcUnitPath> parse_emc_unit_path(std::span<const std::byte> bytes);

// The parameter list of MODE SELECT with page 0x2C: the controller that gets it takes the LUN over.
// lun: 0..31 in the short form (MODE SELECT(6)), 0..255 in the long one (MODE SELECT(10)).
inline constexpr std::size_t kRdacShortListBytes = 4 + 2 + 38 + 32 + 32 + 2;
inline constexpr std::size_t kRdacLongListBytes = 8 + 4 + 38 + 256 + 2;
inline constexpr std::uint8_t kRdacShortLuns = 32;
void encode_rdac_take_over(std::uint8_t lun, bool long_form, std::span<std::byte> list);

}  // namespace iscsi_blkback
