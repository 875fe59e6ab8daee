// The states of a path, in the words of multipath -ll. Values; any thread.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

enum class PathState : std::uint8_t {
  pending,      // not logged in yet, or being identified
  up,           // ready
  ghost,        // not served here until an activation (ALUA standby, RDAC: not the owner)
  down,         // faulty
  quarantined,  // leads to another LUN than the disk's, or to one of another size
};

[[nodiscard]] const char* to_string(PathState state);

// Why a path is down, as far as multipathd has a name of its own for it.
enum class CheckerFinding : std::uint8_t {
  other,
  timeout,       // the LUN does not answer
  disconnected,  // the target has no such LUN any more
  access_state,  // the array does not serve the LUN here now: nothing is broken
};
[[nodiscard]] const char* to_string(CheckerFinding finding);  // "faulty", "i/o timeout", ...

}  // namespace iscsi_blkback
