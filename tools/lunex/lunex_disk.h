// LunexDisk: a LUN opened by its URL as the daemon would open it: one session or several for each
// portal, a path over each (DiskPaths, SessionPool), a MultipathDevice above them. Its sessions have
// ISIDs of their own, so that it never takes over a session of the daemon's. Reactor thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/reactor.h"
#include "base/result.h"
#include "initiator/session/session.h"
#include "multipath/attach/discovery_state.h"
#include "multipath/attach/disk_paths.h"
#include "multipath/attach/session_pool.h"
#include "multipath/multipath_device.h"
#include "tools/config/config.h"

namespace iscsi_blkback {

// A type "random" ISID (RFC 7143 11.12.5) with a qualifier that no guest's number has. number: of
// the session within this process.
[[nodiscard]] Isid make_lunex_isid(std::uint32_t random, std::uint32_t number);

struct LookedUpLun : ResolvedDisk {
  DiskOptions options;  // of the LUN, with what the URL says
};

// Configuration and URL to what can be opened; looks up names and asks discovery portals (blocks).
// sessions: at each portal, instead of the configured number. Errors: invalid_argument for what the
// operator wrote; else the network's.
[[nodiscard]] Result<LookedUpLun> look_up_lun(const Configuration& configuration,
                                              const std::string& url, bool read_only,
                                              std::optional<std::uint16_t> sessions);

class LunexDisk final : private MultipathDevice::Observer {
 public:
  // What for: to read and write, or only to ask questions over its sessions. Then nothing is
  // changed at the LUN: no standby path is activated, no key for reservations is registered.
  enum class Use : std::uint8_t { io, questions };

  // depth: requests under way at once.
  LunexDisk(Reactor& reactor, const DiskSpecification& specification, std::uint32_t depth,
            Use use = Use::io);
  ~LunexDisk();  // closed()
  LunexDisk(const LunexDisk&) = delete;
  LunexDisk& operator=(const LunexDisk&) = delete;

  // Of every path it is known whether it can be used now: redirects have been followed, refusals
  // have come again and again, LUNs have become ready, standby paths have been activated.
  [[nodiscard]] bool settled() const;
  // Not to be waited for any longer, unless settled(): for a login and a moment more, and while a
  // LUN is being asked who it is, for the time which that may take at most.
  [[nodiscard]] bool overdue() const;
  // Why not one path is up; empty while one is, or is on its way.
  [[nodiscard]] std::string trouble() const;
  // That the paths lead to different LUNs and nothing tells which one is meant; empty when not.
  [[nodiscard]] std::string conflict() const;
  [[nodiscard]] MultipathDevice& device() { return *device_; }  // until close()
  [[nodiscard]] MultipathSnapshot snapshot() const { return device_->snapshot(); }
  // A session whose path is up, else one that is logged in, or null; and the LUN's number.
  [[nodiscard]] Session* live_session();
  [[nodiscard]] std::uint16_t lun() const { return lun_; }
  // Times that a session was up and went down.
  [[nodiscard]] std::uint64_t connection_losses() const;
  // The fewest paths that were up at once since the last watch_paths().
  void watch_paths();
  [[nodiscard]] std::size_t fewest_paths_up() const { return fewest_paths_up_; }

  // Logs out. What is still under way completes with aborted, and its connection is reset. closed()
  // follows within the logout timeout.
  void close();
  [[nodiscard]] bool closed() const { return !device_ && sessions_.empty(); }

 private:
  void on_ready(MultipathDevice&) noexcept override {}
  void on_conflict(MultipathDevice& /*device*/, const std::string& why) noexcept override {
    conflict_ = why;
  }
  void on_paths_changed(MultipathDevice& device) noexcept override;
  void on_device_closed();

  Reactor& reactor_;
  std::uint16_t lun_;
  const TimePoint due_;
  const Duration longest_identification_;
  const bool lun_is_named_;  // by wwid
  std::string conflict_;
  SessionPool sessions_;
  std::optional<MultipathDevice> device_;
  std::optional<DiskPaths> paths_;  // as long as device_
  std::size_t fewest_paths_up_ = 0;
  Timer drain_timer_;
  bool closing_ = false;
};

}  // namespace iscsi_blkback
