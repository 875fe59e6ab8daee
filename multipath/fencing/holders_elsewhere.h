// HoldersElsewhere: disks of the LUN that are not in the file where a disk is: in a file that was
// removed from the folder (RemovedHolders), or in another one of the folder that has turned out to
// be the LUN's, or may be (FormerFiles). A disk that does not have the LUN waits for them. Owned by
// LunWriteBarrier, by the thread that has that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "multipath/fencing/barrier_file.h"

namespace iscsi_blkback {

// Disks whose files were removed before this one came, and that are to come to its file. They are
// sought until there are none: those that come later come to this disk's file.
class RemovedHolders {
 public:
  // From now on, at the disk's file.
  void seek(const BarrierFile& file);
  [[nodiscard]] bool sought() const { return sought_; }
  // And not looked for since seek().
  [[nodiscard]] bool must_search() const { return sought_ && !searched_; }
  // What a search has found (BarrierFile::holders_of_removed_files()). One that is gone, without
  // having come, is harmless when quiesce_time is over.
  void found(std::uint64_t there, const BarrierFile& file, TimePoint now, Duration quiesce_time);

 private:
  bool sought_ = true;
  bool searched_ = false;
  std::uint64_t most_ = 0;  // so many were there at once
  std::uint64_t returned_before_ = 0;
  TimePoint harmless_at_{};
};

// Other files of the LUN, and those of LUNs that may be this one, as long as anybody is there.
class FormerFiles {
 public:
  void set(std::vector<BarrierFile> former, std::vector<BarrierFile> ambiguous);
  // A disk that is in one of them, as holder_text(). Empty: none, and nobody comes there.
  [[nodiscard]] std::string holder(TimePoint now);

 private:
  static std::string drop_files_without_holders(std::vector<BarrierFile>& files,
                                                std::optional<TimePoint> now);

  std::vector<BarrierFile> former_;
  std::vector<BarrierFile> ambiguous_;
};

}  // namespace iscsi_blkback
