// MultipathSnapshot: the state of a disk and its paths at one moment, for status, log and tests. A value;
// taken on the reactor thread, read on any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/clock.h"
#include "initiator/session/session_state.h"
#include "multipath/path/path_state.h"

namespace iscsi_blkback {

struct PathSnapshot {
  std::string portal;   // as configured
  std::string address;  // numeric, with port
  std::string interface_name;
  std::string target_name;
  std::uint16_t lun = 0;
  PathState state = PathState::pending;
  SessionState session_state = SessionState::free;
  std::string last_error;  // why it is not up
  // What becomes of it is not known yet: it is tried for the first few times, identified or
  // activated.
  bool on_its_way = false;
  std::uint32_t in_flight = 0;
  bool suspect = false;  // silent with I/O outstanding; not used while another path is there
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;
  Duration marginal_for{};  // more than 0: a last resort for so long
  const char* checker = "";
  CheckerFinding finding = CheckerFinding::other;
  int priority = 1;
  std::uint32_t group = 0;  // in MultipathSnapshot::groups
  // A trial has not shown that another portal of its group fences what it loses.
  bool fenced_alone = false;
};

struct PathGroupSnapshot {
  int priority = 0;
  bool marginal = false;
};

struct MultipathSnapshot {
  std::string alias;
  std::string wwid;  // empty until ready, or when the LUN has none
  std::string vendor;
  std::string product;
  std::string revision;
  Geometry geometry;
  bool ready = false;
  bool queueing = false;  // no path now, requests wait
  // What keeps this disk from being served, or from going on, beside its paths: a sentence; mostly
  // other disks of this host that have used the LUN. Empty: nothing.
  std::string waits_because;
  std::uint32_t queued = 0;
  // Writes that wait for a fence, or whose answers do; requests that wait for another disk.
  std::uint32_t held = 0;
  std::uint32_t waiting_for_space = 0;  // writes that a full LUN has refused
  std::uint32_t in_flight = 0;
  std::uint32_t leaving = 0;  // paths that are being removed, not in paths any more
  std::uint64_t hedged = 0;   // reads and flushes that were asked for twice, so far
  std::string path_selector;
  std::string path_grouping_policy;
  std::string prio;
  std::string hardware_handler;  // what activates ghost paths: "1 alua", "1 rdac" or "0"
  std::string failback;
  std::string portal_group_fences;   // yes, no, trial
  std::string no_path_retry;         // queue, fail, or the time: "30 sec"
  Duration queued_time{};            // in all, that requests had to wait because there was no path
  std::uint64_t queue_timeouts = 0;  // how often no_path_retry was over
  std::uint32_t active_group = 0;
  std::uint64_t group_switches = 0;
  std::vector<PathGroupSnapshot> groups;  // best first
  std::vector<PathSnapshot> paths;

  [[nodiscard]] std::size_t paths_up() const;
};

}  // namespace iscsi_blkback
