// BarrierNames: the names that a LUN is known by to the disks of this host, and whether two sets of
// them are those of one LUN. A LUN gains and loses names while it is in use: the array's firmware
// is upgraded, and while that goes on one controller after the other, each tells its own. So disks
// must find each other by any name that they may rely on, not only by the one that was the best
// when the first of them came. Owned by LunWriteBarrier. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "initiator/scsi/lun_names.h"

namespace iscsi_blkback {

// Whether no other LUN has this name (barrier_name_of()), whatever its target.
[[nodiscard]] bool is_unique_in_the_world(std::string_view name);

// Names a LUN of this host's: equal for disks that lead to the same one. By its name
// (barrier_name_of()) where that is unlike all others in the world. Else the target's name belongs
// to it, because targets that were set up alike share names; and where there is none, the LUN's
// number.
[[nodiscard]] std::string lun_barrier_key(const std::string& name, const std::string& target_name,
                                          std::uint16_t lun);

// Whether both have a name that is unlike all others in the world.
[[nodiscard]] bool share_a_unique_name(const LunNames& one, const LunNames& other);

struct BarrierName {
  LunNames name;            // one of each_of()
  std::string target_name;  // that has told it

  // lun_barrier_key() of this name alone; empty: none that a LUN is known by.
  [[nodiscard]] std::string key() const;
};

struct BarrierNames {
  std::vector<BarrierName> known = {};
  // How the disk that compares them takes serial numbers.
  SerialNumberIs serial = SerialNumberIs::the_luns;

  static constexpr std::size_t kMost = 32;

  // True: it was not known before. Beyond kMost, nothing more is remembered.
  bool add(const BarrierName& name);
  bool add(const LunNames& told, const std::string& target_name);
  bool add(const BarrierNames& others);
};

// Whether the names of `other` are those of the LUN of `disk`: they share one to rely on, and no
// difference() is between them. False where one of them has none.
[[nodiscard]] bool is_same_lun(const BarrierNames& disk, const BarrierNames& other);

}  // namespace iscsi_blkback
