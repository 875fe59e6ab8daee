// PathLoad: what the guest has under way on one path. Each Path counts its own, and nobody else
// does; PathSet keeps them side by side, so that a selector reads all of them in one pass. A value.
#pragma once

#include <cstdint>
#include <span>

#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

struct PathLoad {
  std::uint32_t requests = 0;
  std::uint32_t writes = 0;  // of the requests
  std::uint64_t bytes = 0;   // of whole requests, also where a piece of one is under way
};

using PathLoads = std::span<const PathLoad, kMaxPaths>;  // by number

}  // namespace iscsi_blkback
