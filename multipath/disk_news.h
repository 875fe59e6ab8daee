// DiskNews: what the owner of a disk is told: once that the disk can be used, and once per turn
// that something which a snapshot shows has changed. Owned by MultipathDevice. Reactor thread.
//
// The disk can be used when a path has told which LUN it is, the others that were just being asked
// have answered, too (or a moment is over), and no other disk of this host is waited for.
#pragma once

#include <string>

#include "base/reactor.h"
#include "multipath/capacity_watch.h"
#include "multipath/disk_identity.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class MultipathDevice;

class DiskObserver {
 public:
  // The first good path has told the geometry, and so have those that were just being asked (or
  // a moment is over). Once.
  virtual void on_ready(MultipathDevice& device) noexcept = 0;
  // Just before on_ready: paths that answered together lead to different LUNs, or to one of which
  // they tell different sizes, and nothing tells which one is meant. Unless it closes the device
  // now, the first one is the disk, and the others are quarantined (but not where the LUN is only
  // larger). why: one sentence.
  virtual void on_conflict(MultipathDevice& /*device*/, const std::string& /*why*/) noexcept {}
  // A path changed state, or queueing began or ended; for logs and status.
  virtual void on_paths_changed(MultipathDevice& device) noexcept = 0;
  // The geometry has more sectors than before.
  virtual void on_grown(MultipathDevice& /*device*/) noexcept {}
  // After MultipathDevice::remove_path(): nothing of the path is left, and its session is needed no
  // more.
  virtual void on_path_removed(MultipathDevice& /*device*/, Session& /*session*/) noexcept {}

 protected:
  ~DiskObserver() = default;
};

class DiskNews {
 public:
  // The others outlive it.
  DiskNews(Reactor& reactor, MultipathDevice& device, DiskObserver& observer, const PathSet& paths,
           const LunTurn& turn, DiskIdentity& disk, CapacityWatch& capacity);

  // A snapshot shows something else.
  void tell();
  // The disk is being closed: that it can be used is told no more.
  void close();

 private:
  void tell_ready();
  void tell_changes();

  MultipathDevice& device_;
  DiskObserver& observer_;
  const PathSet& paths_;
  const LunTurn& turn_;
  DiskIdentity& disk_;
  CapacityWatch& capacity_;
  bool ready_told_ = false;
  bool closing_ = false;
  Timer first_answers_timer_;  // from when the LUN is known until ready is told
};

}  // namespace iscsi_blkback
