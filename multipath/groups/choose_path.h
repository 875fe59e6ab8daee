// choose_path: which path of a disk's groups a request takes. By facts; on the way of each request. Reactor thread.
#pragma once

#include <cstdint>

#include "multipath/groups/path_group.h"

namespace iscsi_blkback {

// What is known of the paths: those that are up, those of them that are not silent, and those that
// may take a request (with room in their queue).
struct PathsNow {
  PathMask up = 0;
  PathMask answering = 0;
  PathMask able = 0;
};

// PathGroups::kNoPath: the request must wait. takes(path) is asked last: a path whose session has
// just gone is able until it has said so.
template <class Takes>
[[nodiscard]] std::uint32_t choose_path(PathGroups& groups, const PathGroups::Wanted& wanted,
                                        const PathsNow& paths, TimePoint now, Takes&& takes) {
  if (wanted.prefer && (paths.able & path_bit(*wanted.prefer)) != 0 && takes(*wanted.prefer)) {
    return *wanted.prefer;
  }
  // A group whose paths are all silent is not waited for while another one answers.
  const PathMask working = paths.answering != 0 ? paths.answering : paths.up;
  PathMask candidates = paths.able;
  while (candidates != 0) {
    const PathMask elsewhere = wanted.avoid != 0 ? candidates & ~wanted.avoid : 0;
    const std::uint32_t index = elsewhere != 0
                                    ? groups.select_elsewhere(elsewhere, wanted.length_bytes, now)
                                    : groups.select(working, candidates, wanted.length_bytes, now);
    if (index == PathGroups::kNoPath || takes(index)) [[likely]] {
      return index;
    }
    candidates &= ~path_bit(index);
  }
  return PathGroups::kNoPath;
}

}  // namespace iscsi_blkback
