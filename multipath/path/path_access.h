// PathAccess: how well a path serves its LUN, as the target has told it last (ALUA, RDAC, or a
// refusal), and what that makes of the path: up, ghost, down, or pending while the target port
// changes its access state, which it has kTransitionTimeout for. Owned by Path. Asks nothing;
// reactor thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/path/path_state.h"

namespace iscsi_blkback {

class PathAccess {
 public:
  // An ALUA transition that takes longer is no transition (the limit of Linux).
  static constexpr std::chrono::seconds kTransitionTimeout{60};

  struct Verdict {
    PathState state = PathState::up;
    std::string why;  // it is not up
    CheckerFinding finding = CheckerFinding::other;
  };

  // What it means for guest I/O.
  [[nodiscard]] static AccessState state_of(const LogicalUnitAccess& access);
  [[nodiscard]] static bool serves(const LogicalUnitAccess& access);

  // It has been read.
  void note(const LogicalUnitAccess& access);
  // Nothing before is_told().
  [[nodiscard]] const LogicalUnitAccess& told() const { return told_; }
  [[nodiscard]] bool is_told() const { return is_told_; }
  // Once after is_told(): the disk has not had the path before.
  [[nodiscard]] bool take_new() { return std::exchange(new_, false); }
  // Another port of the same target tells these port groups. True: the state of the path's own
  // group is not what it was.
  [[nodiscard]] bool take_port_groups(const LogicalUnitAccess& told);

  // What becomes of a path whose LUN tells this. The port may begin to change its state with it, or
  // have done so.
  [[nodiscard]] Verdict judge(const LogicalUnitAccess& access, TimePoint now);
  // The target port is between two access states, as far as is known.
  [[nodiscard]] bool changing() const { return changing_until_.has_value(); }
  // ... and has been for too long.
  [[nodiscard]] bool change_overdue(TimePoint now) const {
    return changing_until_ && now >= *changing_until_;
  }
  // Something else has decided what becomes of the path.
  void forget_change() { changing_until_.reset(); }

 private:
  LogicalUnitAccess told_;
  bool is_told_ = false;
  bool new_ = false;
  std::optional<TimePoint> changing_until_;
};

}  // namespace iscsi_blkback
