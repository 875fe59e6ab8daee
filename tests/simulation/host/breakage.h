// Breakage: what is broken on purpose in a run of the host simulation, so that it can be seen that
// the rule in question notices.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace iscsi_blkback {

enum class Breakage : std::uint8_t {
  none,
  // Of the product, at its seams.
  lonely_processes,          // no process learns what another one has left behind at a LUN
  suspend_is_missed,         // the I/O side does not hear that the guest is suspended
  close_is_missed,           // the I/O side does not hear that a disk is closed
  pages_stay_mapped,         // what a guest has granted is never unmapped
  later_queues_stay_mapped,  // ... by a queue of a disk that is not its first
  later_queues_are_missed,   // the I/O side hears of the first queue of a disk only
  requests_fail,             // without a path, requests fail at once
  everything_exclusive,      // LUNs are reset that other hosts may use
  doubt_is_an_end,           // where Xen does not answer, a guest's disks count as ended
  one_login_for_all,         // all LUNs are used with the name and secret of the first
  // Of the world.
  processes_stay_away,   // only the first process of a host is ever started
  target_takes_less,     // ... data at once than it has told
  discards_are_skipped,  // targets answer discards that they do not execute
  discards_come_again,   // ... or execute them once more a moment later, as if a path had kept one
  lun_is_held,           // somebody holds the last LUN back who has nothing to do with it
  run_crashes,
};

[[nodiscard]] std::string_view to_string(Breakage breakage);
[[nodiscard]] std::optional<Breakage> breakage_named(std::string_view name);

}  // namespace iscsi_blkback
