// GuestDataPlane: the I/O side of a guest's process, or one of several (spread_data_plane.h): its sessions, multipath
// devices and rings, all on one reactor thread; and the messages between that and the control thread. The calls of DataPlane
// and DiskPort are the control thread's; everything else is the reactor's. (In tests both are one.)
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/disk_teller.h"
#include "blkback/guest/open_disk.h"
#include "blkback/ring/event_dispatcher.h"
#include "blkback/ring/ring_turn.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/grant_table.h"
#include "multipath/attach/session_pool.h"

namespace iscsi_blkback {

class GuestDataPlane final : public DataPlane {
 public:
  // All references outlive it. Made and destroyed while the reactor does not run, destroyed when
  // every disk that was opened has been closed. barrier_directory, host_started_at: see
  // MultipathOptions; host_id: see host_id.h; barrier_jobs: see SharedFencing; place: of the reactor,
  // among those of the process.
  GuestDataPlane(Reactor& reactor, Reactor& control, GrantTable& grants, EventChannels& channels,
                 DomainId own_domain, DomainId guest, std::string barrier_directory = {},
                 std::optional<TimePoint> host_started_at = {}, std::string host_id = {},
                 BarrierJobs* barrier_jobs = nullptr, ReactorPlace place = {});
  ~GuestDataPlane() override;

  [[nodiscard]] std::unique_ptr<DiskPort> open(DiskHandle disk, DiskSpecification specification,
                                               DiskEvents& events) override;
  void set_guest(DiskHandle first, const GuestNow& guest) override;
  // Somebody beside the control thread has seen what the guest that has the number does now; that
  // holds until set_guest(). That it runs counts only of the guest told last, by its UUID, and not
  // of one that has ended. Any thread.
  void see_guest(const GuestNow& guest);
  void query(std::function<void(std::vector<DiskReport>)> done) override;

 private:
  class Port;

  void take_guest(DiskHandle first, const GuestNow& guest);
  void collect();

  Reactor& reactor_;
  Reactor& control_;
  DomainId guest_;
  const std::string barrier_directory_;
  const std::optional<TimePoint> host_started_at_;
  EventDispatcher dispatcher_;
  RingTurn turn_;
  SessionPool sessions_;
  std::map<DiskHandle, std::unique_ptr<OpenDisk>> disks_;
  DiskHandle first_of_guest_ = 0;
  GuestNow guest_now_;                // of the guest that has the number now
  std::vector<DiskTeller> released_;  // of disks that are closed, whose sessions are on the way out
  Deferred collect_;
};

}  // namespace iscsi_blkback
