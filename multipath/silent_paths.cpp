#include "multipath/silent_paths.h"

namespace iscsi_blkback {

void SilentPaths::on_suspect(const Path& path) {
  paths_.note_suspect(path, true);
  // What has silenced it may have silenced others that have nothing to do: before a write goes
  // there, that shall be known.
  for (Path* other : paths_.all()) {
    other->probe_silence();
  }
  steps_.due(DiskStep::hedge);
  steps_.due(DiskStep::pump);
  steps_.due(DiskStep::tell);
}

void SilentPaths::on_suspicion_over(const Path& path) {
  if (path.session().state() == SessionState::logged_in) {
    forget(path);  // else it goes down now, which is the same failure
  }
  paths_.note_suspect(path, false);
  steps_.due(DiskStep::hedge);
  steps_.due(DiskStep::pump);
  steps_.due(DiskStep::tell);
}

void SilentPaths::on_stall_persists(Path& path) {
  hedger_.drop_if_stuck(path);
  if (counts_as_failure({.suspect = PathSet::has(paths_.suspect(), path),
                         .others_answer = paths_.answering() != 0,
                         .leaving = paths_.is_leaving(path),
                         .counted = PathSet::has(counted_, path)})) {
    counted_ |= path_bit(path.index());
    groups_.note_failure(path);
  }
}

void SilentPaths::on_failed(Path& path) {
  const bool counted = PathSet::has(counted_, path);
  forget(path);
  if (!counted) {
    groups_.note_failure(path);
  }
}

}  // namespace iscsi_blkback
