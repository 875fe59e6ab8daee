// CapacityWatch: has a disk grow with its LUN, and asks the paths from time to time how large that
// is, since not every target tells. It grows when all paths see the new size, by the least that
// any sees. A quarantined path is asked in any case: nothing else tells that it leads to the disk
// again. Owned by MultipathDevice. Reactor thread.
#pragma once

#include <chrono>

#include "base/reactor.h"
#include "multipath/disk_identity.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class CapacityWatch {
 public:
  struct Options {
    bool grows = true;
    std::chrono::milliseconds interval{};  // 0: only quarantined paths are asked
  };

  // The others outlive it.
  CapacityWatch(Reactor& reactor, const Options& options, const PathSet& paths, DiskIdentity& disk,
                DiskLog& log);

  void start();
  // The path leads elsewhere, or sees another size; what is wrong with it may be wrong with all.
  void on_quarantined();
  // The path has changed: where it sees a larger LUN than others, they may know by now, too.
  void ask_others_than(const Path& changed);
  // Paths have changed. True: the disk has grown.
  [[nodiscard]] bool grow_if_all_agree();
  void close();

 private:
  void on_timer();
  [[nodiscard]] bool asks(const Path& path) const;

  Reactor& reactor_;
  const Options options_;
  const PathSet& paths_;
  DiskIdentity& disk_;
  DiskLog& log_;
  bool closed_ = false;
  Timer timer_;
};

}  // namespace iscsi_blkback
