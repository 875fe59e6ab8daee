// KernelLocks: which bytes of which files are locked by open file descriptions (F_OFD_SETLK), as the
// kernel tells (/proc/locks, proc(5)): of files that have no path any more, too. File I/O; any
// thread but a reactor's.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <set>

namespace iscsi_blkback {

struct ExclusiveLock {
  std::uint64_t inode = 0;  // of whichever file system
  off_t at = 0;             // of the last byte

  auto operator<=>(const ExclusiveLock&) const = default;  // NOLINT(modernize-use-nullptr)
};

// Those that are wanted. What has changed meanwhile may be among them or not.
[[nodiscard]] std::set<ExclusiveLock> exclusive_locks(
    const std::function<bool(const ExclusiveLock&)>& wanted);

}  // namespace iscsi_blkback
