// The inside of MultipathDevice; included by multipath_device*.cpp only.
//
//   multipath_device.cpp         the public calls, life, snapshot
//   multipath_device_io.cpp      a request's way: dispatch, completion, retry, hold
//   multipath_device_hedges.cpp  silent paths: what waits there is asked for once more elsewhere
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
#include "multipath/requests/loss_notice.h"
#include "multipath/requests/no_path_timer.h"
#include "multipath/requests/write_cache_view.h"

namespace iscsi_blkback {

class MultipathDevice::Impl final : public Path::Owner,
                                    public LunTurn::Owner,
                                    public WriteFence::Owner,
                                    public NoPathTimer::Owner,
                                    public GroupController::Owner,
                                    public PathActivator::Owner {
 public:
  Impl(MultipathDevice& device, Reactor& reactor, MultipathOptions options, Observer& observer);
  ~Impl();

  Result<void> add_path(Session& session, std::uint16_t lun, std::string portal_name);
  Result<void> remove_path(const Session& session, std::uint16_t lun);
  void set_no_path_retry(std::optional<NoPathRetry> wait);
  void submit(BlockRequest& block);
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

  // False only for the canaries of the simulation.
  bool hold_overlapping_writes_ = true;
  bool discard_answered_reads_ = true;

 private:
  struct Hedge;

  // One request under way: a slot of the pool. It is in exactly one of the lists below, or at a
  // path.
  struct Request : ListHook<Request>, PathCommand {
    enum class Place : std::uint8_t {
      free,      // free_
      queued,    // queued_: no path, or no room on one
      delayed,   // delayed_: its timer brings it back
      held,      // held_: until a fence, until an overlapping write has ended, or for another disk
      at_path,   // in no list; the session has its task
      finished,  // finished_: to be completed later in this turn
      hedged,    // in no list: lost at its path, its hedge will answer
      answered,  // in no list: its hedge has answered, the session still has its task
      withheld,  // withheld_: ended, to be answered when its lost copies are fenced
      doubted,   // doubted_: ended at a path that may lead to another LUN by now
    };

    Request(Reactor& reactor, Impl& impl_owner, IntrusiveList<Request>& home_list)
        : impl(impl_owner),
          home(&home_list),
          timer(
              reactor,
              [](void* self) noexcept {
                auto& request = *static_cast<Request*>(self);
                request.impl.on_delay_over(request);
              },
              this) {}

    using ListHook<Request>::unlink;
    [[nodiscard]] bool is_write() const { return block->operation == BlockOperation::write; }
    [[nodiscard]] std::uint64_t first_sector() const { return block->sector; }
    [[nodiscard]] std::uint64_t end_sector() const { return block->sector + block->sector_count; }
    [[nodiscard]] std::uint32_t length_bytes() const { return block->sector_count * kSectorBytes; }

    Impl& impl;
    IntrusiveList<Request>* home;  // where it is when free: free_, or spare_ (hedges)
    Hedge* hedge = nullptr;
    Place place = Place::free;
    BlockRequest* block = nullptr;        // null: it is answered
    std::uint64_t serial = 0;             // unlike any other request's of this device
    TimePoint started{};                  // at its path, for the selector
    std::uint32_t selected_bytes = 0;     // what the selector was told
    std::uint32_t done_sectors = 0;       // of a request that goes in pieces
    std::optional<std::uint32_t> prefer;  // a retry on the same path
    PathMask avoid = 0;                   // a retry preferably elsewhere
    RetryState retries;
    bool waits_for_space = false;  // delayed, or tried again since
    bool somebody_waits = false;   // a held request waits for the end of this one
    std::uint8_t cache_waits = 0;  // of a refused flush; see ask_for_cache()
    IoStatus result = IoStatus::ok;
    Timer timer;
  };

  // A read or flush that waits at a silent path, asked for once more: a request of our own, which
  // goes the way of any other. Its buffer is its own, because the silent path may still deliver
  // into the first one's; see multipath_device_hedges.cpp.
  struct Hedge : ListHook<Hedge> {
    explicit Hedge(Impl& impl_owner) : impl(impl_owner) {}
    Impl& impl;
    BlockRequest block;
    std::unique_ptr<std::byte[]> buffer;
    std::uint64_t first_byte = 0;  // where the buffer begins in the first one's
    Request* original = nullptr;   // null: answered without this hedge
    Request* second = nullptr;     // that asks again; null: not under way any more
    bool succeeded = false;  // and the first one's buffer cannot be had yet
  };

  // Path::Owner
  void on_path_session_up(Path& path) noexcept override;
  Result<void> check_identity(Path& path, const LogicalUnitIdentity& identity) override;
  void on_path_changed(Path& path) noexcept override;
  void on_path_identity(Path& path) noexcept override;
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
    return held_count_ != 0 || withheld_count_ != 0 || (closing_ && wait_for_fences_);
  }
  void on_fenced() noexcept override { release_held_.schedule(); }
  void on_pause_over() noexcept override { pump_.schedule(); }
  void on_path_released(Path& path) noexcept override { on_path_changed(path); }
  void on_fence_settled() noexcept override { look_at_those_that_end(); }
  void on_withdrawn() noexcept override;
  // LunTurn::Owner
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return fence_.portal_group_fences();
  }
  void on_turn_changed() noexcept override { notify_.schedule(); }
  void on_turn_begins() noexcept override { release_held_.schedule(); }
  void on_overtaken() noexcept override { fail_what_waits(); }
  void on_turn_idle() noexcept override { look_at_those_that_end(); }
  // GroupController::Owner
  [[nodiscard]] PathMask activatable() const override { return activator_.activatable(); }
  void on_activation_wanted() noexcept override { activator_.want_failback(); }
  void on_groups_changed() noexcept override { notify_.schedule(); }
  void on_choice_changed() noexcept override { pump_.schedule(); }
  // PathActivator::Owner
  void on_activatable_changed() noexcept override { groups_.reconsider(); }
  void on_hope_changed() noexcept override { fail_if_failing(); }
  // NoPathTimer::Owner
  [[nodiscard]] NoPathTimer::Paths paths_now() const override;
  void on_no_path_retry_over() noexcept override;
  void on_path_has_lasted() noexcept override;

  // multipath_device_io.cpp
  void start(Request& request, BlockRequest& block);
  void dispatch(Request& request);
  [[nodiscard]] bool keep_back(Request& request);
  [[nodiscard]] bool must_be_held(const Request& request);
  [[nodiscard]] bool must_wait_for_overlap(const Request& request);
  [[nodiscard]] bool try_send(Request& request);
  void queue(Request& request);
  void send(Request& request, Path& chosen);
  void on_command_done(Request& request, ErrorClass error);
  void take_answer(Request& request, IoStatus status);
  void send_next_piece(Request& request);
  // What the path has answered, or would, is no answer for the guest.
  void as_if_not_sent(Request& request);
  void retry(Request& request, ErrorClass error, const ErrorRule& rule);
  // No write that has been answered is in a cache, as far as the path and all others know.
  [[nodiscard]] bool nothing_to_flush(const Path& path) const;
  // A flush, and so it is for this one.
  [[nodiscard]] bool is_needless(const Request& request) const;
  [[nodiscard]] bool any_path_in_doubt() const;
  // One of these paths whose LUN has not refused flushes; nullptr: there is none.
  [[nodiscard]] Path* path_that_flushes(PathMask among) const;
  // False: to be treated as any other error.
  [[nodiscard]] bool take_refused_flush(Request& request);
  // Of a flush that no path takes. True: no path has told of a cache since one has told that there
  // is none; the path that was asked longest ago is asked again, and the flush waits for that.
  [[nodiscard]] bool ask_for_cache(Request& request);
  void delay(Request& request, Duration time);
  void wait_for_space(Request& request);
  void end_wait_for_space(Request& request, IoStatus status);
  void on_delay_over(Request& request);
  void release_held();
  void pump();
  // Completes later in this turn: never from inside submit or close.
  void finish(Request& request, IoStatus status);
  // Only from the reactor.
  [[nodiscard]] IoStatus status_of_success(const Request& request);
  void fail_what_waits();
  void complete(Request& request, IoStatus status);
  [[nodiscard]] bool may_strike_late(const Request& request) const;
  void release_withheld();
  void complete_finished();
  // Not a hedge's.
  [[nodiscard]] bool is_the_guests(const Request& request) const { return request.home == &free_; }
  void to_its_home(Request& request);
  void start_waiting();

  // multipath_device_suspend.cpp
  void withdraw_unsent();
  void drop_silent_paths();
  void on_suspend_timer();
  // multipath_device_hedges.cpp
  void hedge_silent_paths();
  // False: there is no room for another one now.
  [[nodiscard]] bool hedge(Request& request);
  void on_hedge_complete(Hedge& hedge, IoStatus status);
  [[nodiscard]] bool let_go_of_buffer(Request& request);
  void answer_from(Hedge& hedge);
  void drop_if_stuck_in_answer(Path& path);
  // The request's command has ended without an answer for the guest.
  void leave_to_hedge(Request& request);
  // The request does without its hedge.
  void leave_hedge(Request& request);
  void release(Hedge& hedge);

  // multipath_device_paths.cpp
  void note_paths_up(bool had_path);
  [[nodiscard]] bool failing() const;
  void fail_if_failing();
  void fail_waiting_if_no_path();
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
  WriteCacheView cache_;
  LossNotice loss_;

  std::deque<Request> pool_;  // all slots; never grows
  IntrusiveList<Request> free_;
  IntrusiveList<Request> spare_;  // for hedges
  std::deque<Hedge> hedges_;      // never grows
  IntrusiveList<Hedge> free_hedges_;
  std::size_t hedge_bytes_ = 0;  // in buffers of hedges
  bool hedge_wanted_ = false;    // there was no room for one
  std::uint64_t hedged_ = 0;     // so far
  IntrusiveList<Request> queued_;
  IntrusiveList<Request> delayed_;
  IntrusiveList<Request> held_;
  IntrusiveList<Request> withheld_;
  IntrusiveList<Request> doubted_;
  IntrusiveList<Request> finished_;
  IntrusiveList<BlockRequest> waiting_for_slot_;
  std::uint64_t last_serial_ = 0;
  std::uint32_t requests_ = 0;  // slots in use
  std::uint32_t queued_count_ = 0;
  std::uint32_t held_count_ = 0;
  std::uint32_t withheld_count_ = 0;
  std::uint32_t waiting_for_space_ = 0;

  LunTurn turn_;
  WriteFence fence_;

  NoPathTimer no_path_timer_;

  Timer capacity_timer_;

  Deferred finish_;
  Deferred pump_;
  Deferred hedge_more_;
  Deferred release_held_;
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
