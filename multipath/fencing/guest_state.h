// GuestState: what becomes of the guest of a disk, as far as the disk has to know: whether anything
// may be sent for it, and whether other disks may have its LUN. Values; any thread.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

enum class GuestState : std::uint8_t {
  runs,
  in_doubt,   // nobody knows just now: it may be suspended
  suspended,  // it goes on here later, or elsewhere
  moved,      // it has ended while it was suspended, and may go on elsewhere
  ended,      // for good
};

struct GuestNow {
  GuestState state = GuestState::runs;
  // Made of the toolstack's UUID, so that a guest that is moved within the host has it at both
  // places; 0: not known.
  std::uint64_t vm = 0;

  bool operator==(const GuestNow&) const = default;
};

}  // namespace iscsi_blkback
