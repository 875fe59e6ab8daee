// GuestDisks: the disks of a guest's process: those that are served, and those that were retired and
// whose devices still close. Owned by GuestBackend, control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/guest_disk.h"
#include "blkback/guest/guest_nodes.h"
#include "blkback/guest/xenbus_node.h"

namespace iscsi_blkback {

class GuestDisks {
 public:
  static constexpr std::size_t kMax = 256;
  // What the tokens of the frontends' watches begin with.
  static constexpr std::string_view kFrontendToken = "f/";

  // host and log, of what ends, outlive it.
  GuestDisks(const DiskEnvironment& environment, GuestDisk::Host& host, LogLimiter& log)
      : environment_(environment), host_(host), log_(log) {}

  // Serves one more, unless that is one too many: false.
  [[nodiscard]] bool adopt(const GuestNode& node);
  [[nodiscard]] bool serves(const XenbusNodeId& id) const;
  [[nodiscard]] GuestDisk* find(std::uint32_t device_id) const;  // null: there is none
  [[nodiscard]] bool maps_pages() const;
  // Nothing of any is left, at the I/O side neither.
  [[nodiscard]] bool none_left() const { return served_.empty() && retired_.empty(); }
  // Of those of the guest that has the number now, also those that are still to be adopted.
  [[nodiscard]] DiskHandle first_of_guest() const { return first_of_guest_; }
  // reports: null when the I/O side has not answered; taken from.
  [[nodiscard]] std::vector<DiskStatus> status(std::vector<DiskReport>* reports) const;

  // Xenstore's.
  void on_store_open();
  void on_frontend_event(std::string_view token);
  // Of the backends' folder of the guest. False: it is about no disk that is served.
  bool on_backend_event(std::string_view path);

  // Does what is due for all that are marked. True: the node of one was made anew.
  [[nodiscard]] bool advance();

  // See GuestDisk.
  void keep_places();
  void guest_ended();
  // With their rings left as they are, and nothing written to their nodes any more.
  void retire_all();
  // Another guest has the number: all are retired, as disks of the former one.
  void guest_replaced();
  void on_retired_closed(DiskHandle disk) { retired_.erase(disk); }

 private:
  using Disks = std::map<DiskHandle, std::unique_ptr<GuestDisk>>;

  void forget(Disks::iterator disk);

  const DiskEnvironment environment_;
  GuestDisk::Host& host_;
  LogLimiter& log_;
  Disks served_;
  Disks retired_;
  DiskHandle next_ = 1;
  DiskHandle first_of_guest_ = 1;
};

}  // namespace iscsi_blkback
