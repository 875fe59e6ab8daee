// OpenDisk: one disk at the I/O side, from DataPlane::open() until nothing of it is left: its
// multipath device, the paths to it, the ring that it serves, and the clients of its NBD socket. Owned by
// GuestDataPlane, reactor thread only. What the control side asks of it is in DiskPort.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "base/log.h"
#include "base/reactor.h"
#include "base/unique_fd.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/disk_teller.h"
#include "blkback/guest/statistics_writer.h"
#include "blkback/nbd/nbd_server.h"
#include "blkback/ring/block_aligner.h"
#include "blkback/ring/event_dispatcher.h"
#include "blkback/ring/vbd.h"
#include "blkback/xen/grant_table.h"
#include "multipath/attach/disk_paths.h"
#include "multipath/attach/session_pool.h"
#include "multipath/multipath_device.h"

namespace iscsi_blkback {

class OpenDisk final : private MultipathDevice::Observer, private Vbd::Owner {
 public:
  // What the disks of a guest share; outlives them.
  struct Environment {
    Reactor& reactor;
    RingTurn& turn;
    EventDispatcher& dispatcher;
    SessionPool& sessions;
    Deferred& collect;  // what looks whether disks are closed()
    DomainId guest;
  };

  OpenDisk(const Environment& environment, DiskHandle handle, DiskTeller teller,
           DiskSpecification specification, const GuestNow& guest);
  ~OpenDisk();  // closed() only
  OpenDisk(const OpenDisk&) = delete;
  OpenDisk& operator=(const OpenDisk&) = delete;

  void add_portals(const std::vector<ResolvedPortal>& portals);
  // Null while the disk is being closed.
  [[nodiscard]] DiskPaths* paths() { return closing_ ? nullptr : &paths_; }
  [[nodiscard]] MultipathDevice& device() { return device_; }

  void connect(FrontendRing ring);
  void serve_nbd(UniqueFd listening, bool discards);
  void disconnect(RingEnd end);
  void set_read_only(bool read_only);
  // Before close(): this process, or the next one, serves the disk again.
  void keep_place();
  void close(bool abandon);

  // Gone from the device, from every ring and from the clients of the NBD socket.
  [[nodiscard]] bool closed() const { return device_closed_ && vbd_ == nullptr && nbd_ == nullptr; }
  // To be released when it is closed.
  [[nodiscard]] std::vector<Session*> sessions() const { return paths_.sessions(); }
  [[nodiscard]] const DiskTeller& teller() const { return teller_; }
  [[nodiscard]] DiskReport report() const;

  // How often the sentence for hotplug-error is looked at while a device is not ready.
  static constexpr std::chrono::milliseconds kUnavailableInterval{500};
  // For how long paths that are on their way are waited for without a word. Less than the hotplug
  // script waits (35 s) and xl (40 s), so that these can say why.
  static constexpr std::chrono::seconds kPatienceWithPaths{30};
  // Commands of a guest that has gone may still end in order for so long, since a guest that is
  // started anew could otherwise be overtaken by its own old writes; then connections are dropped.
  static constexpr std::chrono::milliseconds kDrainLimit{1000};
  // How often a path is tried anew for which there was no room.
  static constexpr std::chrono::milliseconds kRefusedInterval{10000};

 private:
  // MultipathDevice::Observer.
  void on_ready(MultipathDevice& device) noexcept override;
  void on_conflict(MultipathDevice& device, const std::string& why) noexcept override;
  void on_paths_changed(MultipathDevice&) noexcept override {}
  void on_grown(MultipathDevice& device) noexcept override;
  void on_path_removed(MultipathDevice& device, Session& session) noexcept override;

  // Vbd::Owner.
  void on_vbd_broken(Vbd& vbd, const Error& error) noexcept override;

  // What requests in sectors go to: the device, or the aligner in front of it.
  [[nodiscard]] Result<BlockDevice*> sector_device();
  [[nodiscard]] Result<void> open_ring(FrontendRing ring);
  void on_vbd_closed();
  void on_nbd_closed();
  void on_device_closed();
  void add_later(const ResolvedPortal& where);
  void report_unavailable();

  const Environment environment_;
  const DiskHandle handle_;
  const DiskTeller teller_;
  const std::string name_;
  const bool shared_;  // see MultipathOptions
  MultipathDevice device_;
  DiskPaths paths_;
  std::unique_ptr<BlockAligner> aligner_;  // of a LUN whose blocks are larger than sectors
  std::unique_ptr<NbdServer> nbd_;
  std::unique_ptr<Vbd> vbd_;
  bool vbd_closing_ = false;
  bool read_only_ = false;       // whatever the device was opened for
  StatisticsWriter statistics_;  // of vbd_
  bool place_kept_ = false;
  bool closing_ = false;
  bool abandoned_ = false;
  bool device_closed_ = false;
  const TimePoint opened_at_;
  std::string told_reason_;
  std::vector<ResolvedPortal> refused_;  // for want of room
  LogLimiter refused_log_;
  LogLimiter nbd_log_;
  VbdLog vbd_log_;
  Timer unavailable_timer_;
  Timer drain_timer_;
  Timer refused_timer_;
};

}  // namespace iscsi_blkback
