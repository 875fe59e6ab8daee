// GuestDataPlane: the I/O side of a guest's process: its sessions, multipath devices and rings, all
// on one reactor thread; and the messages between that and the control thread. The DataPlane calls
// are the control thread's; everything else is the reactor's. (In tests both are one.)
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/ring/event_dispatcher.h"
#include "blkback/ring/vbd.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/grant_table.h"
#include "multipath/attach/session_pool.h"

namespace iscsi_blkback {

class GuestDataPlane final : public DataPlane {
 public:
  // All references outlive it. Made and destroyed while the reactor does not run, destroyed when
  // every disk that was opened has been closed. barrier_directory, host_started_at: see
  // MultipathOptions; host_id: see host_id.h.
  GuestDataPlane(Reactor& reactor, Reactor& control, GrantTable& grants, EventChannels& channels,
                 DomainId own_domain, DomainId guest, std::string barrier_directory = {},
                 std::optional<TimePoint> host_started_at = {}, std::string host_id = {});
  ~GuestDataPlane() override;

  void set_events(Events* events) override { events_ = events; }
  void open_device(DiskHandle disk, DiskSpecification specification) override;
  void add_portals(DiskHandle disk, std::vector<ResolvedPortal> portals) override;
  void add_paths(DiskHandle disk, std::vector<ResolvedPortal> portals,
                 std::function<void(Result<void>)> done) override;
  void remove_paths(DiskHandle disk, PathChoice choice,
                    std::function<void(Result<std::vector<ResolvedPortal>>)> done) override;
  void change_policies(DiskHandle disk, const PathPolicySettings& changes) override;
  void set_no_path_retry(DiskHandle disk, std::optional<NoPathRetry> wait) override;
  void connect_ring(DiskHandle disk, DomainId guest, FrontendRing ring) override;
  void disconnect_ring(DiskHandle disk, RingEnd end) override;
  void close_device(DiskHandle disk, bool abandon) override;
  void keep_place(DiskHandle disk) override;
  void set_guest(DiskHandle first, const GuestNow& guest) override;
  // Somebody beside the control thread has seen what the guest that has the number does now; that
  // holds until set_guest(). That it runs counts only of the guest told last, by its UUID, and not
  // of one that has ended. Any thread.
  void see_guest(const GuestNow& guest);
  void query(std::function<void(std::vector<DiskReport>)> done) override;

  // How often the sentence for hotplug-error is looked at while a device is not ready.
  static constexpr std::chrono::milliseconds kTroubleInterval{500};
  // For how long paths that are on their way are waited for without a word. Less than the hotplug
  // script waits (35 s) and xl (40 s), so that these can say why.
  static constexpr std::chrono::seconds kPatienceWithPaths{30};
  // Commands of a guest that has gone may still end in order for so long, since a guest that is
  // started anew could otherwise be overtaken by its own old writes; then connections are dropped.
  static constexpr std::chrono::milliseconds kPatience{1000};
  // How often a path is tried anew for which there was no room.
  static constexpr std::chrono::milliseconds kRefusedInterval{10000};

 private:
  class Disk;

  void take_guest(DiskHandle first, const GuestNow& guest);
  // Runs the event on the control thread.
  template <class Tell>
  void tell(Tell&& event);
  // Runs use on the reactor's thread, with the disk if there is such a one.
  template <class Use>
  void with_disk(DiskHandle handle, Use&& use);
  // The same with its paths, unless it is being closed; tells done, on the control thread, what use
  // returns.
  template <class Value, class Use>
  void ask_paths(DiskHandle handle, Use&& use, std::function<void(Result<Value>)> done);
  void collect();

  Reactor& reactor_;
  Reactor& control_;
  GrantTable& grants_;
  DomainId guest_;
  const std::string barrier_directory_;
  const std::optional<TimePoint> host_started_at_;
  Events* events_ = nullptr;  // control thread's
  EventDispatcher dispatcher_;
  SessionPool sessions_;
  std::map<DiskHandle, std::unique_ptr<Disk>> disks_;
  DiskHandle first_of_guest_ = 0;
  GuestNow guest_now_;                // of the guest that has the number now
  std::vector<DiskHandle> released_;  // closed, their sessions are on the way out
  Deferred collect_;
};

}  // namespace iscsi_blkback
