// MultipathDevice: one disk over N paths; the BlockDevice that a guest's ring submits to. It
// chooses a path for each request, retries what a path lost, and queues while there is no path.
// Reactor thread.
//
// write_order.h says why no write is lost or reordered, path_removals.h what becomes of a path that
// is removed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/block_device.h"
#include "base/reactor.h"
#include "initiator/session/session.h"
#include "multipath/capacity_watch.h"
#include "multipath/disk_end.h"
#include "multipath/disk_identity.h"
#include "multipath/disk_news.h"
#include "multipath/fencing/guest_state.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/groups/ghost_paths.h"
#include "multipath/groups/group_controller.h"
#include "multipath/groups/path_activator.h"
#include "multipath/multipath_options.h"
#include "multipath/multipath_snapshot.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"
#include "multipath/path/suspend_drain.h"
#include "multipath/path_removals.h"
#include "multipath/requests/outage_watch.h"
#include "multipath/requests/request_queue.h"
#include "multipath/silent_paths.h"

namespace iscsi_blkback {

class MultipathDevice final : public BlockDevice,
                              private Path::Owner,
                              private LunTurn::Owner,
                              private WriteFence::Owner,
                              private GroupController::Owner,
                              private PathRemovals::Owner {
 public:
  using Observer = DiskObserver;

  // fencing: of whoever owns the sessions; see shared_fencing.h.
  MultipathDevice(Reactor& reactor, SharedFencing& fencing, MultipathOptions options,
                  Observer& observer);
  ~MultipathDevice() override;  // after close() has finished only

  // At any time. The session is shared, outlives the path, and is started and stopped by its owner.
  // Siblings of the same portal group are found by target name and portal group tag. portal_name:
  // as this disk's operator wrote it, for its rules and messages; empty: as the session has it. The
  // error is a sentence: the disk has this path already, or still, or kMaxPaths of them.
  Result<void> add_path(Session& session, std::uint16_t lun, std::string portal_name = {});
  // Before a session is made for another path: the error that add_path() would have for want of room.
  [[nodiscard]] Result<void> has_room() const { return paths_.has_room(options_.alias); }

  // Takes the path out of use; see above. Observer::on_path_removed() follows, unless close() comes
  // before. The error is a sentence: the disk has no such path, or no other one.
  [[nodiscard]] Result<void> remove_path(const Session& session, std::uint16_t lun);

  // Changes the option of that name, for what waits now, too: the time counts from when the last
  // path was lost. nullopt: as if it had not been set, so that the array table decides.
  void set_no_path_retry(std::optional<NoPathRetry> wait);

  // It is known which LUN the disk is.
  [[nodiscard]] bool ready() const { return disk_.known(); }
  [[nodiscard]] const Geometry& geometry() const override { return disk_.geometry(); }
  void submit(BlockRequest& request) noexcept override { queue_.submit(request); }

  // Unless the guest runs nothing but flushes is sent to a path, neither new requests nor retries:
  // they wait.
  // Nor is the array told to serve the LUN through another controller, nor the LUN reset, whatever
  // exclusive_luns says. For the source of a migration, whose guest may issue them again elsewhere;
  // so a path that is or becomes silent then is dropped at once, and fenced. no_path_retry counts
  // anew from when a suspended guest goes on, and does not count the time of a doubt. Other disks
  // of this host are told when they may have the LUN (LunWriteBarrier): a guest that is in doubt
  // keeps it. Should one have written there when a suspended guest goes on where it was, all requests of this
  // disk end with aborted from then on.
  void set_guest(const GuestNow& guest);

  // Before close(): the guest goes on, and has another disk of this LUN as soon as this one is
  // closed. No other disk of this host is served in between.
  void keep_place() { turn_.keep_place(); }

  // What is set takes the place of what was set before, from the next request on.
  void change_policies(const PathPolicySettings& changes);

  // Stops retrying. Requests that wait or are held complete with aborted in this turn; those at a
  // path complete when the path answers or its connection is gone (the caller bounds that by
  // stopping the sessions). on_closed(owner) comes exactly once, from the reactor, with nothing
  // left; it may delete the device. wait_for_fences: also waits for the fences of lost writes, at
  // most quiesce_time. After that, keys are taken back: in PrRegistration::kUnregisterTime.
  void close(bool wait_for_fences, void (*on_closed)(void* owner) noexcept, void* owner);

  [[nodiscard]] MultipathSnapshot snapshot() const;
  // Of the LUN; all empty before ready().
  [[nodiscard]] const LunNames& names() const override { return disk_.lun().names; }

 private:
  // Switch rules 2 and 3 off, or the rule of the buffers (hedger.h), so that the simulation can
  // prove that it notices.
  friend struct MultipathDeviceCanary;
  void disable_hold_of_overlapping_writes() { queue_.disable_hold_of_overlapping_writes(); }
  void disable_rule_of_buffers() { queue_.hedger().disable_rule_of_buffers(); }

  // Path::Owner
  void on_path_session_up(Path& path) noexcept override;
  Result<void> check_identity(Path& path, const LogicalUnitIdentity& identity) override;
  void on_path_changed(Path& path) noexcept override;
  void on_path_identity(Path& path) noexcept override { queue_.on_path_identity(path); }
  void on_path_access(Path& path) noexcept override;
  void on_loss_told(Path& /*path*/) noexcept override { queue_.note_loss(); }
  void on_path_idle(Path& /*path*/) noexcept override { steps_.due_to_end(); }
  [[nodiscard]] bool may_reset_lun() const noexcept override { return fence_.may_reset(); }
  void on_suspect(Path& path) noexcept override { silent_.on_suspect(path); }
  void on_suspicion_over(Path& path) noexcept override { silent_.on_suspicion_over(path); }
  void on_stall_persists(Path& path) noexcept override { silent_.on_stall_persists(path); }
  void on_activation_done(Path& path, PathActivation::Outcome outcome) noexcept override {
    activator_.on_done(path, outcome);
  }
  void on_latency_measured(Path& path, const LatencyEstimate& measured) noexcept override {
    groups_.on_latency_measured(path, measured);
  }
  // GroupController::Owner
  [[nodiscard]] PathMask activatable() const override { return activator_.activatable(); }
  void on_activation_wanted() noexcept override { activator_.want_failback(); }
  // LunTurn::Owner
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return fence_.portal_group_fences();
  }
  void on_overtaken() noexcept override { queue_.abort_waiting(); }
  // WriteFence::Owner
  [[nodiscard]] const LogicalUnitIdentity& lun() const override { return disk_.lun(); }
  [[nodiscard]] bool waits_for_fence() const override {
    return queue_.waits_for_fence() || end_.waits_for_fences();
  }
  void on_path_released(Path& path) noexcept override { on_path_changed(path); }
  void on_withdrawn() noexcept override;
  // PathRemovals::Owner
  void forget_path(Path& path) override;
  void on_path_removed(Session& session) noexcept override;

  // The guest does not run, as far as is known.
  [[nodiscard]] bool suspended() const { return guest_ != GuestState::runs; }
  void apply_policies();
  // All consequences of what has changed in this turn, in the order of DiskStep.
  void settle();
  void follow_paths();

  Reactor& reactor_;
  const MultipathOptions options_;
  Observer& observer_;
  DiskSteps steps_;
  DiskLog log_;
  RegistrationTable& registrations_;
  PathSet paths_;
  GroupController groups_;
  GhostPaths ghosts_{paths_};
  PathActivator activator_;
  DiskIdentity disk_;
  LunTurn turn_;
  WriteFence fence_;
  RequestQueue queue_;
  OutageWatch outages_;
  SuspendDrain drain_;
  SilentPaths silent_;
  CapacityWatch capacity_;
  PathRemovals removals_;
  DiskNews news_;
  DiskEnd end_;
  GuestState guest_ = GuestState::runs;
};

}  // namespace iscsi_blkback
