// DiskIdentity: which LUN a disk is, and how large. The first path whose LUN tells its size decides
// that; what the others tell is compared with it, at every login and whenever the target says that
// something may have changed. Owned by MultipathDevice. Without threads, timers and I/O.
//
// A LUN is another one than the disk's when its names say so (lun_names.h), when it has other
// logical blocks, or when it is smaller: the guest may have data behind its end. One that is known
// to be the same and has grown serves the disk as before, until grow_to().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/block_device.h"
#include "base/result.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/requests/discard_limits.h"

namespace iscsi_blkback {

class DiskIdentity {
 public:
  // Largest capacity whose byte count still fits 63 bits.
  static constexpr std::uint64_t kMaxCapacityBytes = std::uint64_t{1} << 62;

  struct Wanted {
    // See MultipathOptions.
    std::optional<std::string> wwid;
    std::optional<LunNames> same_lun;
    bool read_only = false;
  };
  // By which path the LUN has told what it is. Valid for one call.
  struct Source {
    const std::string& portal_name;
    const std::string& target_name;
    std::uint16_t lun;
  };

  explicit DiskIdentity(Wanted wanted) : wanted_(std::move(wanted)) {}

  // Whether the path leads to the disk's LUN; the error is a sentence. serial: whose the serial
  // number is. A LUN that is not served by that path now (no size) decides nothing, but must not
  // have the names of another one.
  [[nodiscard]] Result<void> check(const Source& source, const LogicalUnitIdentity& told,
                                   SerialNumberIs serial);
  // A path has said which LUN it is; the rest is valid from then on.
  [[nodiscard]] bool known() const { return known_; }
  // The disk is in use: what a path tells otherwise concerns that path alone from now on.
  void set_in_use() { in_use_ = true; }
  // What a path told otherwise before that, as a sentence; empty: nothing.
  [[nodiscard]] const std::string& conflict() const { return conflict_; }

  [[nodiscard]] const Geometry& geometry() const { return geometry_; }
  // As the first path has told it, with the size of the disk, and the names that all have told.
  [[nodiscard]] const LogicalUnitIdentity& lun() const { return lun_; }
  [[nodiscard]] const std::string& target_name() const { return target_name_; }
  // What a command may transfer at most, by whichever path; 0: not known.
  [[nodiscard]] std::uint32_t piece_sectors() const { return piece_sectors_; }
  // What it may deallocate, likewise.
  [[nodiscard]] const DiscardLimits& discards() const { return discards_; }

  // The least number of blocks that any path sees. True: the disk has grown.
  [[nodiscard]] bool grow_to(std::uint64_t block_count);
  // Once for all growth before: whether there was any.
  [[nodiscard]] bool take_grown() { return std::exchange(grown_, false); }

 private:
  [[nodiscard]] Result<void> adopt(const Source& source, const LogicalUnitIdentity& told);
  [[nodiscard]] Result<void> compare(const Source& source, const LogicalUnitIdentity& told,
                                     SerialNumberIs serial) const;
  [[nodiscard]] std::string conflict_of(const Source& source, const LogicalUnitIdentity& told,
                                        const Result<void>& checked, SerialNumberIs serial) const;
  void limit_pieces(const LogicalUnitIdentity& told);
  void limit_discards(const LogicalUnitIdentity& told);

  const Wanted wanted_;
  bool known_ = false;
  bool in_use_ = false;
  bool grown_ = false;
  LogicalUnitIdentity lun_;
  Geometry geometry_;
  std::string portal_name_;  // of the path that decided
  std::string target_name_;
  std::uint16_t lun_number_ = 0;
  std::string conflict_;
  std::uint32_t piece_sectors_ = 0;
  DiscardLimits discards_;
};

}  // namespace iscsi_blkback
