// GuestDisk: one disk of a guest on the control side. Reads what both ends' nodes in xenstore say,
// and does what next_action() finds due (announce, connect, publish, ... finish). Owned by
// GuestBackend, control thread only.
//
// Rings (DiskRing) come and go with the frontend; the device (DiskDevice) is opened once and closed
// when the disk is no longer wanted. Every wait for the I/O side is bounded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/disk_device.h"
#include "blkback/guest/disk_ring.h"
#include "blkback/guest/guest_nodes.h"
#include "blkback/guest/statistics_folder.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/guest/xenbus_state.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

// One disk as the control side sees it, for status and tests.
struct DiskStatus {
  XenbusNodeId node;
  std::string virtual_device;
  std::string params;  // never with a secret
  bool read_only = false;
  XenbusState backend_state = XenbusState::unknown;  // as last looked at
  XenbusState frontend_state = XenbusState::unknown;
  std::string hotplug_error;
  std::optional<DiskReport> report;  // nullopt: not open, or the reactor did not answer
};

// The guest whose disk it is.
enum class GuestPresence : std::uint8_t {
  runs,      // or may still come back as it is
  resets,    // runs on when the toolstack has taken its devices away and made them anew
  ended,     // as Xen says at this moment
  unknown,   // it had ended, and Xen does not say now whether another one has its number
  replaced,  // another guest has its number, and perhaps its nodes
};

class GuestDisk final : private DiskOwner {
 public:
  // What a disk needs of whoever serves the guest. Outlives it.
  class Host {
   public:
    // Null while xenstored cannot be reached.
    [[nodiscard]] virtual XenStore* store() = 0;
    [[nodiscard]] virtual GuestPresence guest() = 0;
    // advance() is wanted for every marked disk: soon, or after a pause.
    virtual void look_soon() = 0;
    virtual void look_later() = 0;
    // Of a disk that was retired: nothing of it is left. It may be destroyed from inside.
    virtual void on_retired_closed(DiskHandle disk) = 0;

   protected:
    ~Host() = default;
  };

  enum class Outcome : std::uint8_t {
    settled,   // nothing to do until something changes
    finished,  // the disk is over
    replaced,  // the same, and its node was made anew: look for disks again
  };

  // token: of this disk's watch alone.
  GuestDisk(const DiskEnvironment& environment, Host& host, DiskHandle handle,
            const GuestNode& node, std::string token);
  GuestDisk(const GuestDisk&) = delete;
  GuestDisk& operator=(const GuestDisk&) = delete;

  [[nodiscard]] const XenbusNode& node() const { return node_; }

  // Something about the disk may have changed: advance() is due.
  void mark() { dirty_ = true; }
  // Of the node itself, or of a key in it ("/mode").
  void on_node_event(std::string_view key);
  [[nodiscard]] bool take_mark() { return std::exchange(dirty_, false); }
  // With xenstore at hand only.
  [[nodiscard]] Outcome advance();

  // A new connection to xenstore: there are no watches, and what has been written may be gone.
  void on_store_open();
  void unwatch_frontend();

  // The ring's pages are mapped.
  [[nodiscard]] bool maps_pages() const { return ring_.phase() == RingPhase::connected; }

  // The guest has ended: what is being closed need not be fenced any more.
  void guest_ended();
  // Before retire(): the guest goes on, and another process has a disk of this LUN for it soon.
  void keep_place();
  // Ends serving. False: nothing of the disk is left at the I/O side; true: on_retired_closed()
  // will come. leave_ring: the ring stays as it is, for whoever serves it next.
  [[nodiscard]] bool retire(bool leave_ring);

  // See DiskDevice.
  void change(const DiskChange::What& what, DiskDevice::Changed done) {
    device_.change(what, std::move(done));
  }

  [[nodiscard]] DiskStatus status() const;

 private:
  // DiskOwner.
  void on_change() override;
  void on_error(const std::string& sentence) override;
  void on_device_closed() override;

  bool watch_frontend();
  void look_at_description();
  // With the mode that it has now.
  [[nodiscard]] DiskDescription shown() const;
  [[nodiscard]] bool removed_by_toolstack();
  [[nodiscard]] std::optional<Outcome> perform(XenbusAction action, bool guest_runs);
  bool wrote(const Result<void>& result, const char* what);
  [[nodiscard]] std::optional<Outcome> announce();
  bool connect();
  [[nodiscard]] std::shared_ptr<StatisticsPage> statistics_page();
  bool publish();
  bool tell_size();
  void disconnect(bool guest_runs);
  [[nodiscard]] bool remove_node();
  bool write_hotplug();
  // See XenbusNode::write_hotplug().
  [[nodiscard]] std::optional<std::string> device_path() const;
  void look_again_later();

  const DiskEnvironment environment_;
  Host& host_;
  DiskHandle handle_;
  XenbusNode node_;
  const DiskDescription description_;  // what it was attached as
  DiskDescription written_;            // what the node said when it was last looked at
  bool description_due_ = false;       // to be looked at
  std::string token_;
  XenbusStates states_;  // as last read
  bool frontend_watched_ = false;
  bool dirty_ = true;
  bool retired_ = false;
  bool announced_ = false;
  bool lost_by_store_ = false;           // xenstore has forgotten it, which has been said
  bool wrote_closed_;                    // the 6 that the node has is ours, or a former process's
  std::uint64_t published_sectors_ = 0;  // with state 4
  std::string hotplug_error_;
  bool hotplug_written_ = false;  // and so are these:
  std::string written_error_;
  bool written_connected_ = false;
  std::optional<std::string> written_device_path_;
  std::unique_ptr<StatisticsFile> statistics_;  // from its first ring on
  LogLimiter handshake_log_;
  LogLimiter store_log_;
  LogLimiter error_log_;
  DiskDevice device_;
  DiskRing ring_;
};

}  // namespace iscsi_blkback
