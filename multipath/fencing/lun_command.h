// LunCommand: the command of the logical unit by which LunFence fences lost writes, LOGICAL UNIT
// RESET or PREEMPT AND ABORT, on the path that fence_carrier.h chooses, and what its answer means
// for the lost writes and the paths' keys. Owned by WriteFence. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "base/reactor.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/scsi/scsi_task.h"
#include "initiator/session/task_management.h"
#include "multipath/fencing/fence_carrier.h"
#include "multipath/fencing/lun_fence.h"
#include "multipath/fencing/nexus_fencer.h"
#include "multipath/fencing/unfenced_writes.h"
#include "multipath/groups/path_activator.h"
#include "multipath/path/login_nexus.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class LunCommand final : public LunFence::Command {
 public:
  class Owner {
   public:
    // Whether every portal of the target is one with every other, says the operator.
    [[nodiscard]] virtual bool is_one_target() const = 0;
    // The path, which is up, may be used again.
    virtual void on_path_released(Path& path) noexcept = 0;
    // The command has ended. how: an error's name.
    virtual void on_answered(bool done, const char* how) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // preempts: by PREEMPT AND ABORT; else by LOGICAL UNIT RESET. The others outlive it.
  LunCommand(bool preempts, PathSet& paths, UnfencedWrites& unfenced, const NexusFencer& sessions,
             const PathActivator& activator, Owner& owner);

  // Of the last one; while LunFence::under_way().
  [[nodiscard]] bool is_carried_by(const Path& path) const { return carrier_ == &path; }
  [[nodiscard]] bool ends_commands_of(const Path& path) const { return lost_ == &path; }
  // Registers the path's key, if it has one and this login has not done so yet.
  void register_key(Path& path);

  // LunFence::Command
  [[nodiscard]] bool choose_path(TimePoint harmless_at) override;
  [[nodiscard]] Ready ready() const override;
  void send() override;
  void abandon() override;
  [[nodiscard]] bool take_answer(bool done, TimePoint harmless_at) override;
  void release_path() override;
  void doubt_requests() override;
  [[nodiscard]] std::string text() const override;

 private:
  [[nodiscard]] FencePaths look() const;
  [[nodiscard]] FencePath look_at(const Path& path) const;
  void send_reset();
  void send_preemption();

  const bool preempts_;
  PathSet& paths_;
  UnfencedWrites& unfenced_;
  const NexusFencer& sessions_;
  const PathActivator& activator_;
  Owner& owner_;
  Path* carrier_ = nullptr;
  Path* lost_ = nullptr;  // whose writes a preemption ends, in this nexus
  LoginNexus lost_nexus_;
  TaskManagement function_;
  ScsiTask task_;
  std::array<std::byte, kReserveOutListBytes> buffer_{};
};

}  // namespace iscsi_blkback
