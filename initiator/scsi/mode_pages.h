// What MODE SENSE (6 and 10) tells of a LUN: the device-specific parameter, the caching page and
// the control page (SPC-4 7.5, SBC-3 6.4). Parsed with bounds from what really arrived. Pure
// functions.
// Errors: protocol, for data that end before their header does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace iscsi_blkback {

struct CachingPage {
  bool write_cache = false;  // WCE: a write may be answered before the medium has it
  bool read_cache = true;    // not RCD
};

struct ControlPage {
  std::uint8_t task_set_type = 0;       // TST; 1: one task set for each nexus
  bool software_write_protect = false;  // SWP
  bool task_aborted_status = false;     // TAS: tasks that another nexus aborts are answered
  bool descriptor_sense = false;        // D_SENSE
};

struct ModeData {
  bool write_protected = false;    // WP
  bool force_unit_access = false;  // DPOFUA: the FUA bit is understood
  std::optional<CachingPage> caching;
  // There is none in what has arrived, and that is not all that the target has.
  bool caching_cut_off = false;
  std::optional<ControlPage> control;
};

// Pages that are cut off are left out, and so are others.
[[nodiscard]] Result<ModeData> parse_mode_sense6(std::span<const std::byte> bytes);
[[nodiscard]] Result<ModeData> parse_mode_sense10(std::span<const std::byte> bytes);

}  // namespace iscsi_blkback
