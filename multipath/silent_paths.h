// SilentPaths: what follows when paths of a disk go silent (stall_detector.h). A silent path takes
// nothing new while another one answers, and what waits there is asked for once more elsewhere. A
// silence that lasts counts as a failure of its path, once: also when it ends with the connection.
// Owned by MultipathDevice. Reactor thread.
#pragma once

#include "multipath/groups/group_controller.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_mask.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/hedger.h"

namespace iscsi_blkback {

struct StallFacts {
  bool suspect = false;        // the path is silent still
  bool others_answer = false;  // else the target is silent, and not the path
  bool leaving = false;        // the path is being removed
  bool counted = false;        // this silence has counted already
};

// A silence has gone on for a while.
[[nodiscard]] constexpr bool counts_as_failure(const StallFacts& facts) {
  return facts.suspect && facts.others_answer && !facts.leaving && !facts.counted;
}

class SilentPaths {
 public:
  // The others outlive it.
  SilentPaths(PathSet& paths, GroupController& groups, Hedger& hedger, DiskSteps& steps)
      : paths_(paths), groups_(groups), hedger_(hedger), steps_(steps) {}

  void on_suspect(const Path& path);
  void on_suspicion_over(const Path& path);
  void on_stall_persists(Path& path);
  // The path was up, and is not because of an error.
  void on_failed(Path& path);
  // The silence is over, or its path is removed: the next one counts again.
  void forget(const Path& path) { counted_ &= ~path_bit(path.index()); }

 private:
  PathSet& paths_;
  GroupController& groups_;
  Hedger& hedger_;
  DiskSteps& steps_;
  PathMask counted_ = 0;  // their silence has counted
};

}  // namespace iscsi_blkback
