// BarrierFollow: a look, for a disk, at what has become of its file, which needs the folder: whether
// it is where it was and still the LUN's; the file that is the LUN's now, with a slot in it and the
// dead of all others; and who holds a file that was removed. A value, made by
// LunWriteBarrier::begin_follow(), which takes it back by end_follow(). Whoever has it runs it, on
// any thread: it looks at the disk's file by a description of its own, as another process does, and
// changes nothing of the disk's slot. File I/O; system calls that do not wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_folder.h"
#include "multipath/fencing/barrier_names.h"
#include "multipath/fencing/barrier_slot.h"

namespace iscsi_blkback {

struct BarrierFollow {
  // What the disk knows.
  std::string folder;
  std::string key;
  BarrierNames names;
  BarrierHolder holder;
  std::size_t slot = 0;
  bool names_are_told = true;  // the file has them
  bool seeks_removed = false;  // disks whose files were removed are sought
  BarrierFile view;            // its file, by another description than the disk's

  // What was found.
  struct Found {
    // Locked until the disk is seen in the file: nobody may forward that before.
    BarrierFolder folder;
    BarrierFolder::Found files;
    BarrierNames names;        // of the file
    bool was_removed = false;  // the disk's file
    // Where the disk has to move: its slot in the other file, locked and not in use yet, and a view
    // of that.
    std::optional<std::size_t> slot = {};
    BarrierFile view = {};
  };
  std::optional<Found> found = {};  // nullopt: nothing has changed
  // One sentence; with it, found is nullopt.
  std::optional<Error> error = {};
  // A search's: so many disks of the LUN have removed files; nullopt: there was none.
  std::optional<std::uint64_t> removed = {};

  void run();

 private:
  [[nodiscard]] Result<void> look();
};

}  // namespace iscsi_blkback
