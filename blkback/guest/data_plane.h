// DataPlane: what the control side of a guest process asks of the I/O side, and what it hears back.
// Every call and every event happens on the control thread; the implementation carries them to and
// from the reactor. Calls return at once, and no event comes from inside of one.
//
// Life of a disk: open(), then rings as often as the frontend comes and goes (connect_ring ...
// on_ring_disconnected), then close() ... on_closed(), after which its port is of no use any more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/unique_fd.h"
#include "blkback/guest/xenbus_node.h"
#include "multipath/attach/disk_config.h"
#include "multipath/attach/path_choice.h"
#include "multipath/fencing/guest_state.h"
#include "multipath/multipath_snapshot.h"

namespace iscsi_blkback {

// A number that no other disk ever has. Later disks have greater ones.
using DiskHandle = std::uint32_t;

struct RingStatistics {
  std::uint64_t read_requests = 0;
  std::uint64_t write_requests = 0;
  std::uint64_t flush_requests = 0;
  std::uint64_t discard_requests = 0;
  std::uint64_t error_responses = 0;
  std::uint64_t read_sectors = 0;
  std::uint64_t written_sectors = 0;
  std::uint64_t discarded_sectors = 0;
  std::uint32_t in_flight = 0;
  std::uint32_t held_flushes = 0;  // of these, flushes that have failed and are tried again
};

struct DiskReport {
  DiskHandle disk = 0;
  MultipathSnapshot multipath;
  std::optional<RingStatistics> ring;  // nullopt while there is no ring
};

enum class RingEnd : std::uint8_t {
  answer,   // what is in flight is answered
  forget,   // the guest's memory is not touched from now on: it is another kernel's by now
  abandon,  // the same, nobody waits for answers, and the device is closed as well
};

class DiskEvents {
 public:
  // Once: a first path has told what the LUN is.
  virtual void on_ready(const Geometry& geometry, const LunNames& names) = 0;
  // Just before that: other paths lead to another LUN, or tell another size of it, why is one
  // sentence. The first one's LUN is the disk unless close() comes.
  virtual void on_conflict(const std::string& why) = 0;
  // The LUN has grown, and the disk with it.
  virtual void on_grown(const Geometry& geometry) = 0;
  // While no path has been found: why, one sentence. Only when it changes.
  virtual void on_unavailable(const std::string& why) = 0;
  // Nothing of the disk is left: no request at a target, no session that only it used. The last
  // event; the port may be destroyed from inside.
  virtual void on_closed() = 0;

 protected:
  ~DiskEvents() = default;
};

class RingEvents {
 public:
  // After connect_ring(): connected, or what was wrong with the guest's references or port.
  virtual void on_ring_connected(const Result<void>& result) = 0;
  // The guest broke the ring's protocol; the ring is served no more. disconnect_ring() is due.
  virtual void on_ring_broken(const std::string& why) = 0;
  virtual void on_ring_disconnected() = 0;

 protected:
  ~RingEvents() = default;
};

// The control side's end of an open disk. When it is destroyed the disk stays as it is, and nothing
// more is heard of it.
class DiskPort {
 public:
  virtual ~DiskPort() = default;

  // More ways to the same LUN, found later; those that the disk has already are ignored.
  virtual void add_portals(std::vector<ResolvedPortal> portals) = 0;
  // An operator's: as add_portals(), and done hears, on the control thread, whether at least one
  // has been added; the error is one sentence. Never called if the reactor does not answer.
  virtual void add_paths(std::vector<ResolvedPortal> portals,
                         std::function<void(Result<void>)> done) = 0;
  // Begins to remove all paths that the choice includes; done as above, with those that it did.
  virtual void remove_paths(PathChoice choice,
                            std::function<void(Result<std::vector<ResolvedPortal>>)> done) = 0;
  virtual void change_policies(const PathPolicySettings& changes) = 0;
  // See MultipathDevice::set_no_path_retry().
  virtual void set_no_path_retry(std::optional<NoPathRetry> wait) = 0;
  // Whether the guest's writes are refused from now on, of those that are not under way yet. A disk
  // that was opened to be read only stays so.
  virtual void set_read_only(bool read_only) = 0;
  // Device ready only. events outlives the port.
  virtual void connect_ring(FrontendRing ring, RingEvents& events) = 0;
  // Device ready only, once for each life of the device: beside the ring, to the clients of a FirmwareSocket,
  // of which listening is a server_end(); until the device is closed. discards: offered where the LUN has them.
  virtual void serve_nbd(UniqueFd listening, bool discards) = 0;
  // Ends in on_ring_disconnected when no request of this ring is left; with abandon bounded,
  // whatever the paths do.
  virtual void disconnect_ring(RingEnd end) = 0;
  // Ends in on_closed, when the disk's lost writes have been fenced: quiesce_time after the last
  // was lost, at most. abandon: the guest is gone, what is outstanding is waited for no longer than
  // a moment; may follow one without it.
  virtual void close(bool abandon) = 0;
  // Before close(): the disk is opened anew as soon as it is closed.
  virtual void keep_place() = 0;
};

class DataPlane {
 public:
  virtual ~DataPlane() = default;

  // Not while the disk is open. events outlives the port.
  [[nodiscard]] virtual std::unique_ptr<DiskPort> open(DiskHandle disk,
                                                       DiskSpecification specification,
                                                       DiskEvents& events) = 0;
  // Of the guest whose disks are those from first on, those that are opened later too: unless it
  // runs, what it may re-issue elsewhere is not tried again here, and paths that are silent are
  // given up at once. Disks before first are another guest's, and stay as they are.
  virtual void set_guest(DiskHandle first, const GuestNow& guest) = 0;
  // done: on the control thread; never called if the reactor does not answer.
  virtual void query(std::function<void(std::vector<DiskReport>)> done) = 0;
};

}  // namespace iscsi_blkback
