// BarrierFolder: the barrier files of this host, of which there must be one for each LUN, whichever
// of its names a disk has been told. Locked while a disk comes to its file or finds out another
// name of its LUN, so that two who do so at the same time come to the same file. Owned by a
// function of LunWriteBarrier. BarrierThread's thread, or the service's control thread; system calls.
//
// A file outlives its disks, as it knows the LUN by all of its names. But LUNs come and go (clones
// that are backed up), each file takes memory, and each is looked at whenever a disk comes: of
// those that no disk uses, the oldest are forgotten.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_names.h"

namespace iscsi_blkback {

class BarrierFolder {
 public:
  struct Found {
    BarrierFile file;
    // Others of the LUN, from where disks come to `file` when they notice.
    std::vector<BarrierFile> former;
    // Files of several LUNs, any of which this one may be: its names do not tell.
    std::vector<BarrierFile> ambiguous;
    // In the lines of all files that are here.
    std::uint64_t last_place = 0;
  };

  // Made where it does not exist. Whoever has the lock holds it for the time of a look at each file
  // (some 15 us), unless the process is stopped just then. Errors: one sentence with the folder's
  // path; unavailable: another process has it, and another try is worth it.
  [[nodiscard]] static Result<BarrierFolder> lock(const std::string& folder);

  // Files that stay though no disk uses them, together with those that are used.
  static constexpr std::size_t kMostFiles = 512;

  // The LUN's file: that of its names, or that of its key, which is made where there is none. From
  // then on it has these names, and all other files with one of them are forwarded to it. in_use:
  // where the disk is already; null: nowhere, or in a file that was removed or is forwarded. Errors: one
  // sentence, see BarrierFile; conflict, a file is forwarded to none of this program's.
  [[nodiscard]] Result<Found> find(const std::string& key, const BarrierNames& names,
                                   const BarrierFile* in_use) const;

 private:
  BarrierFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  [[nodiscard]] Result<BarrierFile> open_key(const std::string& key) const;
  // By the last place in the line of each.
  using Files = std::vector<std::pair<std::uint64_t, std::string>>;
  static void forget_oldest(Files files);

  std::string path_;
  UniqueFd lock_;
};

}  // namespace iscsi_blkback
