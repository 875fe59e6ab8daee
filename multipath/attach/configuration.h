// The operator's settings as plain data, after validation: what
// /etc/iscsi-blkback/iscsi-blkback.toml says, with defaults filled in. Read once at start and on
// reload, then immutable; any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ascii_case.h"
#include "initiator/login/session_options.h"
#include "multipath/multipath_options.h"

namespace iscsi_blkback {

inline constexpr std::uint16_t kIscsiPort = 3260;

// Where a target listens, as written: a host name or numeric address, and the NIC to use. Arrays
// that have a target name for each controller serve one disk by several names.
struct Portal {
  std::string host;  // no brackets
  std::uint16_t port = kIscsiPort;
  InterfaceBinding interface_binding;  // empty: those of the paths, or whatever the routing says
  std::string target_name = {};        // of what is there; empty: the disk's

  [[nodiscard]] std::string to_string() const;  // "host:port", brackets around IPv6
  bool operator==(const Portal&) const = default;
};

// How many paths a portal makes.
struct PortalOptions {
  // One path through each, to every portal that does not say itself which interface it is for;
  // none: one path, whatever the routing says.
  std::vector<InterfaceBinding> interfaces;
  std::uint16_t sessions_per_portal = 1;  // and interface; 1..kMaxSessionsPerPortal
};
inline constexpr std::uint16_t kMaxSessionsPerPortal = 8;

// Names of one iSCSI node, which has no other one that differs in the letters' case only (RFC 7143
// 4.2.7.2, RFC 3722). They are sent as they are written: some targets compare bytes.
[[nodiscard]] inline bool same_iscsi_name(std::string_view one, std::string_view other) {
  return equal_text(one, other);
}
// What a map by such names has for one of them: as it is written, else in other letters.
template <class Value>
[[nodiscard]] const Value* find_iscsi_name(const std::map<std::string, Value>& map,
                                           const std::string& name) {
  auto found = map.find(name);
  if (found == map.end()) {
    found = std::find_if(map.begin(), map.end(),
                         [&](const auto& each) { return same_iscsi_name(each.first, name); });
  }
  return found == map.end() ? nullptr : &found->second;
}

// Where options were written: "FILE:LINE", by name.
using SettingPlaces = std::map<std::string, std::string, std::less<>>;

// What can be said of all disks, of those of a target, and of one; of the latter two with what is
// said above them.
struct DiskOptions {
  SessionOptions session;  // portal, target and isid are filled in at attach
  MultipathOptions multipath;
  PortalOptions paths;
  // What a guest is told that its sectors are, 512 or 4096. With 4096 its frontend must count in 512
  // bytes all the same, as blkif.h since Xen 4.20 and Linux have it; others count otherwise.
  std::uint32_t sector_size = 512;
  SettingPlaces places;
};

// What the config file says of a target as a whole.
struct ConfiguredTarget : DiskOptions {};

// A LUN named in the config file.
struct ConfiguredLun : DiskOptions {
  std::string alias;
  std::string target_name;
  std::vector<std::string> other_target_names;  // that lead to the same LUN
  std::uint16_t lun = 0;
  std::vector<Portal> portals;  // empty: found by discovery on the portal list
};

// The names by which its targets serve a LUN, each once or several times.
[[nodiscard]] std::vector<std::string> target_names(const ConfiguredLun& lun);
[[nodiscard]] bool names_target(const ConfiguredLun& lun, const std::string& name);
// Two aliases of one LUN: a target name and the number are the same.
[[nodiscard]] bool same_lun(const ConfiguredLun& one, const ConfiguredLun& other);

struct Configuration : DiskOptions {
  std::string initiator_name;
  std::vector<Portal> discovery_portals;
  std::map<std::string, ConfiguredTarget> targets;  // by name
  std::map<std::string, ConfiguredLun> luns;        // by alias
  std::uint32_t max_ring_page_order = 4;      // log2 of the most ring pages offered to a guest
  std::uint32_t max_queues = 4;               // the most queues of a disk that a guest is offered
  std::uint32_t max_indirect_segments = 256;  // the most pages of a request; 0: 11, as without them
  std::uint32_t max_buffers_mb = 64;          // of a disk, for the data of its guest's requests
  std::string run_directory = "/run/iscsi-blkback";        // control sockets, barriers of LUNs
  std::string state_directory = "/var/lib/iscsi-blkback";  // outlives the host; see host_end.h
  std::string log_level = "info";
  std::uint32_t reactors = 1;          // of a guest's process, which its disks are spread over
  std::uint32_t poll_max_us = 100;     // of a reactor of disks; see poll_governor.h
  std::uint32_t poll_cpu_share = 100;  // percent
  bool core_dumps = false;             // of stacks; see core_dumps.h
  bool sandbox = true;                 // of guests' processes; see guest_sandbox.h
  std::uint32_t first_guest_user = 1879048192;  // and group; see iscsi-blkback.toml(5)
};

// Each DiskOptions of a configuration, which may be const.
void for_each_options(auto& configuration, auto&& visit) {
  visit(configuration);
  for (auto& [name, target] : configuration.targets) {
    visit(target);
  }
  for (auto& [alias, lun] : configuration.luns) {
    visit(lun);
  }
}

// Of all disks that may be.
[[nodiscard]] Duration longest_quiesce_time(const Configuration& configuration);

}  // namespace iscsi_blkback
