// GuestBackend: the control side of one guest's process: watches its nodes in xenstore, finds
// the guest's disks that are ours there, notices when the guest ends or is suspended, and has each
// GuestDisk look again when something of it changed. It holds no thread of its own, so that tests
// run it with in-memory twins.
//
// Everything happens on the control thread, driven by its reactor; xenstore calls block it. Watch
// events only mark what has to be looked at; looking happens at most every kMinimumGap, so that a
// guest that floods its nodes costs a bounded amount of work and memory (XSA-349). What could not
// be read or written stays marked, and is looked at again after kRetry.
//
// Xen uses numbers again: when another guest has this one's, the disks of the one before are
// retired, whatever they were about to do, and the new one's are served beside them. They share the
// sessions, whose logins fence what the retired ones have lost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/firmware_socket.h"
#include "blkback/guest/guest_disk.h"
#include "blkback/guest/guest_disks.h"
#include "blkback/guest/guest_nodes.h"
#include "blkback/guest/guest_watch.h"
#include "blkback/guest/log_limits.h"
#include "blkback/guest/report_queries.h"
#include "blkback/guest/statistics_folder.h"
#include "blkback/guest/store_connection.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"
#include "multipath/attach/configuration.h"
#include "multipath/attach/path_discovery.h"

namespace iscsi_blkback {

struct GuestStatus {
  DomainId guest = 0;
  bool complete = false;  // the reactor answered in time
  std::vector<DiskStatus> disks;
};

class GuestBackend final : private GuestDisk::Host,
                           private GuestWatch::Owner,
                           private StoreConnection::Client {
 public:
  struct Environment {
    Reactor& control;
    StoreConnection::Factory open_store;  // again after xenstored has gone
    DomainInfo* domains;                  // null: not allowed to ask; only xenstore tells then
    DataPlane& data_plane;
    PathDiscovery& resolver;
    StatisticsFolder* statistics = nullptr;  // null: there are none for others to read
    FirmwareSockets* firmware = nullptr;     // null: no firmware boots from the disks
  };

  // on_finished: no disk is left or expected, and the I/O side holds nothing of any; the caller
  // ends the process. Called once, from the reactor.
  GuestBackend(Environment environment, const Configuration& configuration, DomainId own_domain,
               DomainId guest, std::function<void()> on_finished);
  GuestBackend(const GuestBackend&) = delete;
  GuestBackend& operator=(const GuestBackend&) = delete;

  // The error is the first connection's to xenstore.
  [[nodiscard]] Result<void> start();

  // Ends serving without detaching anything: rings are left as they are, devices are closed, the
  // nodes keep their states. on_finished comes when that is done.
  void stop();

  // What an operator asks of one disk; done: see DiskDevice.
  void change(const DiskChange& change, DiskDevice::Changed done);

  // Somebody else has told the data plane of the guest: asks anew, and tells what is so.
  void tell_guest_again();

  // done: once, on the control thread, at most ReportQueries::kTimeout later.
  void query(std::function<void(GuestStatus)> done);

  static constexpr std::chrono::milliseconds kMinimumGap{5};
  static constexpr std::chrono::milliseconds kRetry{1000};

 private:
  // GuestDisk::Host; store() also GuestWatch::Owner's.
  [[nodiscard]] XenStore* store() override { return connection_.store(); }
  [[nodiscard]] GuestPresence guest() override;
  void look_soon() override;
  void look_later() override;
  void on_retired_closed(DiskHandle disk) override;

  // GuestWatch::Owner.
  [[nodiscard]] bool is_told_of_the_guest() const override;
  [[nodiscard]] bool maps_pages() const override { return disks_.maps_pages(); }
  void on_guest_changed(const GuestRunState& before) override;

  // StoreConnection::Client.
  [[nodiscard]] Result<void> on_store_open(XenStore& store) override;
  void on_store_event(const WatchEvent& event) override;
  void on_store_lost() override;

  void look();
  void watch_releases();
  [[nodiscard]] std::vector<GuestNode> new_nodes();
  void adopt(const std::vector<GuestNode>& nodes);
  void replace_guest();
  [[nodiscard]] GuestNow guest_now() const;
  void tell_disks_of_guest();
  void finish_if_done();

  Environment environment_;
  DomainId own_domain_;
  DomainId guest_;
  std::function<void()> on_finished_;
  LogLimiter all_log_{kGuestLogLimit};  // everything of this guest
  LogLimiter guest_log_{kMessageLimit, all_log_};
  LogLimiter nodes_log_{kMessageLimit, all_log_};
  LogLimiter watch_log_{kMessageLimit, all_log_};
  StoreConnection connection_;
  GuestWatch watch_;
  ReportQueries reports_;
  GuestDisks disks_;
  GuestNow told_;  // the disks, of the guest that has the number now
  std::uint32_t served_incarnation_ = 0;
  Timer look_timer_;
  TimePoint last_look_{};
  bool scan_due_ = false;
  bool releases_watched_ = false;
  TimePoint watch_releases_at_{};
  bool stopping_ = false;
  bool finished_ = false;
};

}  // namespace iscsi_blkback
