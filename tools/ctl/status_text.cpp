#include "tools/ctl/status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>

#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;  // ours is 8 deep

std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

template <class Number>
Number number_at(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) {
    return 0;
  }
  return static_cast<Number>(
      std::min<std::uint64_t>(found->get<std::uint64_t>(), std::numeric_limits<Number>::max()));
}

bool true_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

const json& list_at(const json& object, const char* key) {
  static const json kNone = json::array();
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : kNone;
}

// nullptr when there is none (yet).
const json* map_of(const DiskStatusRow& disk) {
  const auto found = disk.disk.find("map");
  return found != disk.disk.end() && found->is_object() ? &*found : nullptr;
}

// An object that says ok; else why not.
Result<json> parse_object(const std::string& line) {
  json reply = json::parse(
      line, [](int depth, json::parse_event_t, json&) { return depth <= kMaxDepth; }, false);
  if (!reply.is_object() || !true_at(reply, "ok")) {
    const std::string sentence = reply.is_object() ? text_at(reply, "error") : std::string{};
    return fail(ErrorCode::protocol,
                sentence.empty() ? "its answer cannot be read" : "it says: " + sentence);
  }
  return reply;
}

// ... of the type expected.
Result<json> parse_reply(const std::string& line, std::string_view type) {
  Result<json> reply = parse_object(line);
  if (reply && text_at(*reply, "type") != type) {
    return fail(ErrorCode::protocol, "its answer is not of the expected type");
  }
  return reply;
}

void read_service(const json& reply, StatusOverview& overview) {
  for (const json& guest : list_at(reply, "guests")) {
    if (guest.is_object() && text_at(guest, "state") == "waiting") {
      overview.remarks.push_back(
          fmt::format("guest {}: its process has ended and is to be restarted in a moment",
                      number_at<unsigned>(guest, "domid")));
    }
  }
}

void read_guest(unsigned domain, const json& reply, StatusOverview& overview) {
  if (!true_at(reply, "complete")) {
    overview.remarks.push_back(
        fmt::format("guest {}: the I/O thread of its process does not answer", domain));
  }
  for (const json& disk : list_at(reply, "disks")) {
    if (disk.is_object()) {
      overview.disks.push_back({domain, disk});
    }
  }
}

PathSnapshot path_snapshot(const json& path, const std::string& word, std::uint32_t group) {
  PathSnapshot snapshot;
  snapshot.portal = text_at(path, "portal");
  snapshot.address = text_at(path, "address");
  snapshot.interface_name = text_at(path, "interface");
  snapshot.target_name = text_at(path, "target_wwnn");
  const std::string lun = text_at(path, "lun_hex");
  snapshot.lun = static_cast<std::uint16_t>(std::strtoul(lun.c_str(), nullptr, 16));
  snapshot.suspect = true_at(path, "suspect");
  snapshot.fenced_alone = true_at(path, "fenced_alone");
  snapshot.state = true_at(path, "quarantined") ? PathState::quarantined
                   : word == "ready" || (snapshot.suspect && text_at(path, "dm_st") == "active")
                       ? PathState::up
                   : word == "ghost"       ? PathState::ghost
                   : word == "i/o pending" ? PathState::pending
                                           : PathState::down;
  for (const CheckerFinding finding : {CheckerFinding::timeout, CheckerFinding::disconnected}) {
    if (word == to_string(finding)) {
      snapshot.finding = finding;
    }
  }
  snapshot.session_state =
      text_at(path, "dev_st") == "running" ? SessionState::logged_in : SessionState::free;
  snapshot.last_error = text_at(path, "last_error");
  snapshot.priority = number_at<int>(path, "pri");
  snapshot.marginal_for = std::chrono::seconds(number_at<std::uint32_t>(path, "marginal_sec"));
  snapshot.group = group;
  return snapshot;
}

MultipathSnapshot map_snapshot(const json& map) {
  MultipathSnapshot snapshot;
  snapshot.alias = text_at(map, "name");
  snapshot.wwid = text_at(map, "uuid");
  snapshot.vendor = text_at(map, "vend");
  snapshot.product = text_at(map, "prod");
  snapshot.revision = text_at(map, "rev");
  snapshot.geometry.sector_count = number_at<std::uint64_t>(map, "size_bytes") / kSectorBytes;
  snapshot.geometry.read_only = text_at(map, "write_prot") == "ro";
  snapshot.ready = true_at(map, "ready");
  snapshot.queueing = text_at(map, "features").starts_with('1');
  snapshot.hedged = number_at<std::uint64_t>(map, "hedged");
  snapshot.waiting_for_space = number_at<std::uint32_t>(map, "waiting_for_space");
  const std::string queueing = text_at(map, "queueing");
  snapshot.no_path_retry = queueing == "on" ? "queue" : queueing == "off" ? "fail" : queueing;
  snapshot.hardware_handler = text_at(map, "hwhandler");
  std::uint32_t number = 0;
  for (const json& group : list_at(map, "path_groups")) {
    if (!group.is_object()) {
      continue;
    }
    snapshot.path_selector = text_at(group, "selector");
    snapshot.groups.push_back({.priority = number_at<int>(group, "pri"),
                               .marginal = text_at(group, "marginal_st") == "marginal"});
    if (text_at(group, "dm_st") == "active") {
      snapshot.active_group = number;
    }
    for (const json& path : list_at(group, "paths")) {
      if (path.is_object()) {
        snapshot.paths.push_back(path_snapshot(path, text_at(path, "chk_st"), number));
      }
    }
    ++number;
  }
  return snapshot;
}

}  // namespace

std::string DiskStatusRow::device_name() const {
  return fmt::format("dom{}/{}", domain, text_at(disk, "vdev"));
}

std::uint32_t DiskStatusRow::device_id() const {
  return number_at<std::uint32_t>(disk, "devid");
}

Result<void> read_answer(const Result<std::string>& line) {
  if (!line) {
    return tl::unexpected(line.error());
  }
  const auto reply = parse_object(*line);
  return reply ? Result<void>() : tl::unexpected(reply.error());
}

StatusOverview read_status(const std::vector<StatusReply>& replies) {
  StatusOverview overview;
  for (const StatusReply& reply : replies) {
    const std::string who =
        reply.domain ? fmt::format("guest {}: its process", *reply.domain) : "the service";
    if (!reply.line && (reply.line.error().code == ErrorCode::unavailable ||
                        reply.line.error().code == ErrorCode::not_found)) {
      continue;  // left behind by a process that has ended
    }
    overview.any_process = true;
    if (!reply.domain) {
      overview.service_running = true;
    }
    auto parsed = reply.line ? parse_reply(*reply.line, reply.domain ? "guest" : "service")
                             : Result<json>(tl::unexpected(reply.line.error()));
    if (!parsed) {
      overview.remarks.push_back(
          fmt::format("{} gives no status: {}", who, parsed.error().message));
      if (reply.domain) {
        overview.unresponsive.push_back(*reply.domain);
      }
    } else if (reply.domain) {
      read_guest(*reply.domain, *parsed, overview);
    } else {
      read_service(*parsed, overview);
    }
  }
  if (overview.any_process && !overview.service_running) {
    overview.remarks.push_back(
        "the service is not running; the guests' processes go on without it, but no disk can be "
        "added");
  }
  return overview;
}

void keep_only(StatusOverview& overview, std::string_view name) {
  const auto other = [&](const DiskStatusRow& disk) {
    if (name == disk.device_name() || name == text_at(disk.disk, "vdev")) {
      return false;
    }
    const json* map = map_of(disk);
    return map == nullptr || (name != text_at(*map, "name") && name != text_at(*map, "uuid"));
  };
  std::erase_if(overview.disks, other);
}

PrintableLines topology_text(const StatusOverview& overview) {
  PrintableLines text;
  for (const DiskStatusRow& disk : overview.disks) {
    const std::string trouble = text_at(disk.disk, "hotplug_error");
    if (const json* map = map_of(disk)) {
      text.add(render_topology(map_snapshot(*map), disk.device_name()));
    } else {
      text.add(fmt::format("{}: {}", disk.device_name(),
                           trouble.empty() ? "nothing is known of its paths yet" : trouble));
    }
  }
  return text;
}

json topology_json(const StatusOverview& overview) {
  json maps = json::array();
  json without = json::array();
  for (const DiskStatusRow& disk : overview.disks) {
    json about = disk.disk;
    about["domid"] = disk.domain;
    if (const json* map = map_of(disk)) {
      json entry = *map;
      about.erase("map");
      // Our keys stand beside those of multipathd, which readers of its JSON know.
      entry["disk"] = std::move(about);
      maps.push_back(std::move(entry));
    } else {
      without.push_back(std::move(about));
    }
  }
  return json{{"major_version", 0},
              {"minor_version", 1},
              {"maps", std::move(maps)},
              {"disks_without_map", std::move(without)},
              {"unresponsive", overview.unresponsive}};
}

}  // namespace iscsi_blkback
