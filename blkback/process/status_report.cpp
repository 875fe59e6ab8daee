#include "blkback/process/status_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/json_text.h"
#include "base/version.h"

namespace iscsi_blkback {
namespace {

using nlohmann::json;

const char* checker_state(const PathSnapshot& path) {
  switch (path.state) {
    case PathState::up:
      return "ready";
    case PathState::ghost:
      return "ghost";
    case PathState::pending:
      return "i/o pending";
    case PathState::down:
      return to_string(path.finding);
    case PathState::quarantined:
      return "faulty";
  }
  return "undef";
}

const char* dm_state(PathState state) {
  switch (state) {
    case PathState::up:
    case PathState::ghost:
      return "active";
    case PathState::pending:
      return "undef";
    case PathState::down:
    case PathState::quarantined:
      return "failed";
  }
  return "undef";
}

json path_json(const PathSnapshot& path) {
  return json{
      {"dev", path.address},
      {"dev_t", "-"},
      {"dm_st", dm_state(path.state)},
      {"dev_st", path.session_state == SessionState::logged_in ? "running" : "offline"},
      {"chk_st", path.suspect ? "i/o pending" : checker_state(path)},
      {"checker", path.checker},
      {"pri", path.priority},
      {"host_wwnn", "[undef]"},
      {"target_wwnn", path.target_name},
      {"host_wwpn", "[undef]"},
      {"target_wwpn", "[undef]"},
      {"host_adapter", "[undef]"},
      {"lun_hex", fmt::format("0x{:04x}", path.lun)},
      {"marginal_st", path.marginal_for > Duration::zero() ? "marginal" : "normal"},
      {"marginal_sec", std::chrono::ceil<std::chrono::seconds>(path.marginal_for).count()},
      {"portal", path.portal},
      {"address", path.address},
      {"interface", path.interface_name},
      {"session_state", to_string(path.session_state)},
      {"suspect", path.suspect},
      {"fenced_alone", path.fenced_alone},
      {"quarantined", path.state == PathState::quarantined},
      {"in_flight", path.in_flight},
      {"requests", path.requests},
      {"failures", path.failures},
      {"last_error", path.last_error},
  };
}

const char* group_state(const MultipathSnapshot& map, std::uint32_t group, bool usable) {
  if (!usable) {
    return "enabled";
  }
  return group == map.active_group ? "active" : "enabled";
}

json groups_json(const MultipathSnapshot& map) {
  std::set<std::uint32_t> numbers;
  for (const PathSnapshot& path : map.paths) {
    numbers.insert(path.group);
  }
  json groups = json::array();
  for (const std::uint32_t number : numbers) {
    json paths = json::array();
    const int priority = number < map.groups.size() ? map.groups[number].priority : 0;
    bool usable = false;
    for (const PathSnapshot& path : map.paths) {
      if (path.group == number) {
        paths.push_back(path_json(path));
        usable = usable || path.state == PathState::up;
      }
    }
    groups.push_back(json{
        {"selector", map.path_selector},
        {"pri", priority},
        {"dm_st", group_state(map, number, usable)},
        {"marginal_st",
         number < map.groups.size() && map.groups[number].marginal ? "marginal" : "normal"},
        {"group", groups.size() + 1},
        {"paths", std::move(paths)},
    });
  }
  return groups;
}

// multipathd's words for no_path_retry.
std::string queueing_word(const std::string& no_path_retry) {
  if (no_path_retry == "queue") {
    return "on";
  }
  return no_path_retry == "fail" ? "off" : no_path_retry;
}

json map_json(const MultipathSnapshot& map, const std::string& virtual_device) {
  std::uint64_t faults = 0;
  for (const PathSnapshot& path : map.paths) {
    faults += path.failures;
  }
  return json{
      {"name", map.alias.empty() ? virtual_device : map.alias},
      {"uuid", map.wwid},
      {"sysfs", virtual_device},
      {"failback", map.failback},
      {"queueing", queueing_word(map.no_path_retry)},
      {"paths", map.paths.size()},
      {"write_prot", map.geometry.read_only ? "ro" : "rw"},
      {"dm_st", "active"},
      {"features", map.no_path_retry == "fail" ? "0" : "1 queue_if_no_path"},
      {"hwhandler", map.hardware_handler},
      {"prio", map.prio},
      {"pgpolicy", map.path_grouping_policy},
      {"action", ""},
      {"path_faults", faults},
      {"vend", map.vendor},
      {"prod", map.product},
      {"rev", map.revision},
      {"switch_grp", map.group_switches},
      {"map_loads", 1},
      {"total_q_time", std::chrono::duration_cast<std::chrono::seconds>(map.queued_time).count()},
      {"q_timeouts", map.queue_timeouts},
      {"size_bytes", map.geometry.sector_count * kSectorBytes},
      {"portal_group_fences", map.portal_group_fences},
      {"ready", map.ready},
      {"queued", map.queued},
      {"held", map.held},
      {"hedged", map.hedged},
      {"waiting_for_space", map.waiting_for_space},
      {"in_flight", map.in_flight},
      {"path_groups", groups_json(map)},
  };
}

json statistics_json(const RingStatistics& ring) {
  return json{
      {"read_requests", ring.read_requests},
      {"write_requests", ring.write_requests},
      {"flush_requests", ring.flush_requests},
      {"discard_requests", ring.discard_requests},
      {"error_responses", ring.error_responses},
      {"read_sectors", ring.read_sectors},
      {"written_sectors", ring.written_sectors},
      {"discarded_sectors", ring.discarded_sectors},
      {"in_flight", ring.in_flight},
      {"held_flushes", ring.held_flushes},
  };
}

}  // namespace

std::string guest_status_line(const GuestStatus& status) {
  json disks = json::array();
  for (const DiskStatus& disk : status.disks) {
    json entry{
        {"vdev", disk.virtual_device},
        {"devid", disk.node.device_id},
        {"kind", to_string(disk.node.kind)},
        {"mode", disk.read_only ? "r" : "w"},
        {"params", disk.params},
        {"state", to_string(disk.backend_state)},
        {"frontend_state", to_string(disk.frontend_state)},
        {"hotplug_error", disk.hotplug_error},
    };
    if (status.complete) {
      entry["map"] = disk.report ? map_json(disk.report->multipath, disk.virtual_device) : json();
      entry["statistics"] =
          disk.report && disk.report->ring ? statistics_json(*disk.report->ring) : json();
    }
    disks.push_back(std::move(entry));
  }
  const json reply{
      {"ok", true},
      {"type", "guest"},
      {"version", kVersion},
      {"domid", status.guest},
      {"pid", ::getpid()},
      {"complete", status.complete},
      {"disks", std::move(disks)},
  };
  return json_text(reply);
}

}  // namespace iscsi_blkback
