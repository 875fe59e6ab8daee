// The parts of a disk that a WriteFence stands on, and a RequestQueue with it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "multipath/fencing/write_fence.h"
#include "multipath/groups/ghost_paths.h"
#include "tests/multipath/unconnected_paths.h"

namespace iscsi_blkback {

// Nothing of it logs in. What is due in a turn, the test is told and sees to.
class FencedDisk final : private GroupController::Owner,
                         private LunTurn::Owner,
                         private WriteFence::Owner {
 public:
  FencedDisk(SimReactor& reactor, SharedFencing& fencing, const WriteFence::Options& options,
             const PathPolicySettings& settings = {})
      : log(reactor, "disk"),
        steps(
            reactor, [](void* self) noexcept { static_cast<FencedDisk*>(self)->settle(); }, this),
        paths(reactor, log),
        groups(reactor, {.settings = settings, .arrays = nullptr, .path_weights = {}}, paths.set,
               steps, log, *this),
        ghosts_(paths.set),
        activator_(reactor, std::chrono::seconds(1), paths.set, ghosts_, groups, steps, log),
        turn(reactor, {}, fencing, paths.set, steps, log, *this),
        fence(reactor, options, fencing, paths.set, groups, activator_, turn, steps, log, *this) {}
  ~FencedDisk() {
    EXPECT_TRUE(fence.withdraw());
    turn.leave();
  }

  Path& add(Session& session, std::uint16_t lun = 0) {
    fence.add(session);
    return paths.add(session, lun);
  }
  Path& add() { return add(add_session()); }
  Session& add_session(const std::string& target_name = "iqn.2026-01.test:target") {
    return paths.add_session(target_name);
  }
  void set_wwid(const std::string& wwid) { lun_.wwid = wwid; }
  [[nodiscard]] std::vector<DiskStep> take_steps() { return std::exchange(done_, {}); }

 private:
  void settle() {
    while (const auto step = steps.take_next({})) {
      done_.push_back(*step);
    }
  }
  [[nodiscard]] PathMask activatable() const override { return 0; }
  void on_activation_wanted() noexcept override {}
  [[nodiscard]] const LunNames& names() const override { return lun_.names; }
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return fence.portal_group_fences();
  }
  void on_overtaken() noexcept override {}
  [[nodiscard]] const LogicalUnitIdentity& lun() const override { return lun_; }
  [[nodiscard]] bool waits_for_fence() const override { return true; }
  void on_path_released(Path& /*path*/) noexcept override {}
  void on_withdrawn() noexcept override {}

  LogicalUnitIdentity lun_;
  std::vector<DiskStep> done_;

 public:
  DiskLog log;
  DiskSteps steps;
  UnconnectedPaths paths;
  GroupController groups;

 private:
  GhostPaths ghosts_;
  PathActivator activator_;

 public:
  LunTurn turn;
  WriteFence fence;
};

}  // namespace iscsi_blkback
