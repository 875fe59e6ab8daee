// The inside of MultipathDevice; included by multipath_device*.cpp only.
//
//   multipath_device.cpp         the public calls, life, snapshot
//   multipath_device_suspend.cpp  the guest is suspended, or the disk closed: what stops then
//   multipath_device_paths.cpp   what paths and fences tell: identity, no path, closing
//   multipath_device_changes.cpp  paths that come and go while the disk is in use
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/log.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/session/task_management.h"
#include "multipath/disk_identity.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/session_fencer.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/groups/group_controller.h"
#include "multipath/groups/path_activator.h"
#include "multipath/multipath_device.h"
#include "multipath/path/error_policy.h"
#include "multipath/path/path.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/no_path_timer.h"
#include "multipath/requests/request_queue.h"

namespace iscsi_blkback {

class MultipathDevice::Impl final : public Path::Owner,
                                    public LunTurn::Owner,
                                    public WriteFence::Owner,
                                    public RequestQueue::Owner,
                                    public NoPathTimer::Owner,
                                    public GroupController::Owner,
                                    public PathActivator::Owner {
 public:
  Impl(MultipathDevice& device, Reactor& reactor, MultipathOptions options, Observer& observer);
  ~Impl();

  Result<void> add_path(Session& session, std::uint16_t lun, std::string portal_name);
  Result<void> remove_path(const Session& session, std::uint16_t lun);
  void set_no_path_retry(std::optional<NoPathRetry> wait);
  void submit(BlockRequest& block) { queue_.submit(block); }
  void set_guest(const GuestNow& guest);
  void keep_place() { turn_.keep_place(); }
  // It does not run, as far as is known.
  [[nodiscard]] bool suspended() const { return guest_.state != GuestState::runs; }
  void close(bool wait_for_fences, void (*on_closed)(void* owner) noexcept, void* owner);
  void change_policies(const PathPolicySettings& changes);
  [[nodiscard]] MultipathSnapshot snapshot() const;
  // Which LUN it is; before the disk is used by anybody.
  [[nodiscard]] bool ready() const { return disk_.known(); }
  [[nodiscard]] const Geometry& geometry() const { return disk_.geometry(); }
  [[nodiscard]] const LunNames& names() const override { return disk_.lun().names; }

  void disable_hold_of_overlapping_writes() { queue_.disable_hold_of_overlapping_writes(); }
  void disable_rule_of_buffers() { queue_.hedger().disable_rule_of_buffers(); }

 private:
  // Path::Owner
  void on_path_session_up(Path& path) noexcept override;
  Result<void> check_identity(Path& path, const LogicalUnitIdentity& identity) override;
  void on_path_changed(Path& path) noexcept override;
  void on_path_identity(Path& path) noexcept override { queue_.on_path_identity(path); }
  void on_path_access(Path& path) noexcept override;
  void on_space_low(Path& path) noexcept override;
  void on_loss_told(Path& path, const std::string& sense) noexcept override;
  void on_path_idle(Path& path) noexcept override;
  [[nodiscard]] bool may_reset_lun() const noexcept override { return fence_.may_reset(); }
  void on_suspect(Path& path) noexcept override;
  void on_suspicion_over(Path& path) noexcept override;
  void on_silence_goes_on(Path& path) noexcept override;
  void on_activation_done(Path& path, PathActivation::Outcome outcome) noexcept override;
  void on_latency_measured(Path& path, const LatencyEstimate& measured) noexcept override;
  // WriteFence::Owner
  [[nodiscard]] const LogicalUnitIdentity& lun() const override { return disk_.lun(); }
  [[nodiscard]] bool waits_for_fence() const override {
    return queue_.waits_for_fence() || (closing_ && wait_for_fences_);
  }
  void on_fenced() noexcept override { queue_.release_held_soon(); }
  void on_pause_over() noexcept override { queue_.pump_soon(); }
  void on_path_released(Path& path) noexcept override { on_path_changed(path); }
  void on_fence_settled() noexcept override { look_at_those_that_end(); }
  void on_withdrawn() noexcept override;
  // LunTurn::Owner
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return fence_.portal_group_fences();
  }
  void on_turn_changed() noexcept override { notify_.schedule(); }
  void on_turn_begins() noexcept override { queue_.release_held_soon(); }
  void on_overtaken() noexcept override { queue_.abort_waiting(); }
  void on_turn_idle() noexcept override { look_at_those_that_end(); }
  // GroupController::Owner
  [[nodiscard]] PathMask activatable() const override { return activator_.activatable(); }
  void on_activation_wanted() noexcept override { activator_.want_failback(); }
  void on_groups_changed() noexcept override { notify_.schedule(); }
  void on_choice_changed() noexcept override { queue_.pump_soon(); }
  // PathActivator::Owner
  void on_activatable_changed() noexcept override { groups_.reconsider(); }
  void on_hope_changed() noexcept override { fail_if_failing(); }
  // NoPathTimer::Owner
  [[nodiscard]] NoPathTimer::Paths paths_now() const override;
  void on_no_path_retry_over() noexcept override;
  void on_path_has_lasted() noexcept override;

  // RequestQueue::Owner
  void on_request_waits() noexcept override { fail_if_failing(); }
  void on_leaving_path_quieter() noexcept override { finish_removals_.schedule(); }
  void on_space_changed() noexcept override { notify_.schedule(); }
  void on_request_ended() noexcept override { check_closed_.schedule(); }

  // multipath_device_suspend.cpp
  void withdraw_unsent();
  void drop_silent_paths();
  void on_suspend_timer();
  // multipath_device_paths.cpp
  void note_paths_up(bool had_path);
  [[nodiscard]] bool failing() const;
  void fail_if_failing();
  void look_at_those_that_end();
  void notify();
  void tell_ready();
  void tell_changes();
  void check_closed();
  // multipath_device_identity.cpp
  void grow_if_all_agree(const Path* changed);
  void start_capacity_timer();
  void on_capacity_timer();
  [[nodiscard]] bool asks_for_capacity(const Path& path) const;

  // multipath_device_changes.cpp
  // A path that is being removed.
  struct Removal {
    Removal(Reactor& reactor, Impl& impl_owner, Path& removed)
        : impl(impl_owner),
          path(removed),
          patience(
              reactor,
              [](void* self) noexcept {
                auto& removal = *static_cast<Removal*>(self);
                removal.impl.on_removal_overdue(removal);
              },
              this) {}

    // Nothing of our own is outstanding there. Guest I/O is the requests'.
    [[nodiscard]] bool idle() const { return path.idle() && !aborting; }

    Impl& impl;
    Path& path;
    Timer patience;
    TaskManagement abort;
    bool aborting = false;     // abort is the session's
    bool abort_ended = false;  // with whatever answer
    bool withdrawn = false;    // from the fencer
    bool nothing_at_fencer = false;
  };
  void on_removal_overdue(Removal& removal);
  void on_abort_ended(Removal& removal);
  [[nodiscard]] bool nothing_outstanding(const Removal& removal) const;
  void finish_removals();
  void forget_path(const Path& path);

  void apply_policies();
  void add_group_snapshots(MultipathSnapshot& snapshot) const;
  [[nodiscard]] bool on_its_way(const Path& path) const;

  MultipathDevice& device_;
  Reactor& reactor_;
  const MultipathOptions options_;
  Observer& observer_;
  DiskLog log_;
  const std::shared_ptr<SessionFencer> sessions_;

  PathSet paths_;
  std::vector<std::unique_ptr<Removal>> removals_;
  GroupController groups_;
  PathActivator activator_;

  DiskIdentity disk_;

  LunTurn turn_;
  WriteFence fence_;
  RequestQueue queue_;

  NoPathTimer no_path_timer_;

  Timer capacity_timer_;

  Deferred finish_removals_;
  Deferred notify_;
  bool ready_told_ = false;
  Timer first_answers_timer_;  // from ready() until ready is told

  GuestNow guest_;
  Timer suspend_timer_;  // the end of the time that writes at a path have to be answered
  bool closing_ = false;
  bool wait_for_fences_ = false;
  bool withdrawn_ = false;  // withdraw() has been called
  bool nothing_at_fencer_ = false;
  void (*on_closed_)(void* owner) noexcept = nullptr;
  void* on_closed_owner_ = nullptr;
  Deferred check_closed_;
};

}  // namespace iscsi_blkback
