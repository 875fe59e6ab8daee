#include "multipath/multipath_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxTroubleBytes = 600;

struct PathLine {
  std::string portal;
  std::string lun;
  const char* device_mapper_state = "undef";
  const char* checker_state = "undef";
  const char* device_state = "offline";
  const PathSnapshot* path = nullptr;
};

const char* device_mapper_state(PathState state) {
  switch (state) {
    case PathState::pending:
      return "undef";
    case PathState::up:
    case PathState::ghost:
      return "active";
    case PathState::down:
    case PathState::quarantined:
      return "failed";
  }
  return "undef";
}

const char* checker_state(const PathSnapshot& path) {
  switch (path.state) {
    case PathState::pending:
      return "i/o pending";
    case PathState::up:
      return "ready";
    case PathState::ghost:
      return "ghost";
    case PathState::down:
      return to_string(path.finding);
    case PathState::quarantined:
      return "quarantined";
  }
  return "undef";
}

PathLine path_line(const PathSnapshot& path) {
  return {.portal = path.interface_name.empty()
                        ? path.portal
                        : fmt::format("{},{}", path.portal, path.interface_name),
          .lun = fmt::format("lun {}", path.lun),
          .device_mapper_state = device_mapper_state(path.state),
          .checker_state = path.suspect ? "i/o pending" : checker_state(path),
          .device_state = path.session_state == SessionState::logged_in ? "running" : "offline",
          .path = &path};
}

void add_header(const MultipathSnapshot& snapshot, std::string_view device_name,
                PrintableLines& lines) {
  std::string name = snapshot.alias.empty() ? snapshot.wwid : snapshot.alias;
  if (!snapshot.wwid.empty() && name != snapshot.wwid) {
    name += fmt::format(" ({})", snapshot.wwid);
  }
  if (!device_name.empty()) {
    name += fmt::format(" {}", device_name);
  }
  lines.add(fmt::format("{} {},{}", name, snapshot.vendor.empty() ? "##" : snapshot.vendor,
                        snapshot.product.empty() ? "##" : snapshot.product));
  const bool queues = snapshot.no_path_retry == "queue" ||
                      (snapshot.no_path_retry != "fail" &&
                       (!snapshot.ready || snapshot.queueing || snapshot.paths_up() != 0));
  lines.add(fmt::format(
      "size={} features='{}' hwhandler='{}' wp={}{}{}", render_size(snapshot.geometry.sector_count),
      queues ? "1 queue_if_no_path" : "0",
      snapshot.hardware_handler.empty() ? "0" : snapshot.hardware_handler,
      snapshot.geometry.read_only ? "ro" : "rw",
      snapshot.hedged == 0 ? std::string()
                           : fmt::format(" [reads asked for twice: {}]", snapshot.hedged),
      snapshot.waiting_for_space == 0
          ? std::string()
          : fmt::format(" [the LUN is full, writes that wait for space: {}]",
                        snapshot.waiting_for_space)));
}

}  // namespace

std::string render_size(std::uint64_t sector_count) {
  double size = static_cast<double>(sector_count) / 2;
  constexpr std::string_view units = "KMGTPE";
  std::size_t unit = 0;
  while (size >= 1024 && unit + 1 < units.size()) {
    size /= 1024;
    ++unit;
  }
  return size < 10 ? fmt::format("{:.1f}{}", size, units[unit])
                   : fmt::format("{:.0f}{}", size, units[unit]);
}

PrintableLines render_topology(const MultipathSnapshot& snapshot, std::string_view device_name) {
  PrintableLines text;
  std::vector<PathLine> lines;
  std::size_t portal_width = 0;
  std::size_t lun_width = 0;
  std::size_t checker_width = 0;
  std::size_t state_width = 0;
  std::uint32_t groups = static_cast<std::uint32_t>(snapshot.groups.size());
  for (const PathSnapshot& path : snapshot.paths) {
    const PathLine& line = lines.emplace_back(path_line(path));
    portal_width = std::max(portal_width, line.portal.size());
    lun_width = std::max(lun_width, line.lun.size());
    state_width = std::max(state_width, std::string_view(line.device_mapper_state).size());
    checker_width = std::max(checker_width, std::string_view(line.checker_state).size());
    groups = std::max(groups, path.group + 1);
  }

  add_header(snapshot, device_name, text);
  for (std::uint32_t group = 0; group < groups; ++group) {
    std::vector<const PathLine*> members;
    for (const PathLine& line : lines) {
      if (line.path->group == group) {
        members.push_back(&line);
      }
    }
    const bool last_group = group + 1 == groups;
    const bool active = group == snapshot.active_group &&
                        std::any_of(members.begin(), members.end(), [](const PathLine* line) {
                          return line->path->state == PathState::up;
                        });
    text.add(fmt::format("{}-+- policy='{}' prio={} status={}", last_group ? '`' : '|',
                         snapshot.path_selector,
                         group < snapshot.groups.size() ? snapshot.groups[group].priority : 0,
                         active ? "active" : "enabled"));
    for (std::size_t index = 0; index < members.size(); ++index) {
      const PathLine& line = *members[index];
      std::string shown =
          fmt::format("{} {}- {:<{}} {:<{}} {:<{}} {:<{}} {}", last_group ? ' ' : '|',
                      index + 1 == members.size() ? '`' : '|', line.portal, portal_width, line.lun,
                      lun_width, line.device_mapper_state, state_width, line.checker_state,
                      checker_width, line.device_state);
      if (line.path->suspect) {
        shown += " [silent: used only while no other path is left]";
      }
      if (line.path->marginal_for > Duration::zero()) {
        shown +=
            fmt::format(" [marginal: a last resort for {} s]",
                        std::chrono::ceil<std::chrono::seconds>(line.path->marginal_for).count());
      }
      if (line.path->fenced_alone) {
        shown += " [no other portal fences for it]";
      }
      if (line.path->state != PathState::up && !line.path->last_error.empty()) {
        shown += fmt::format(" [{}]", line.path->last_error);
      }
      text.add(shown);
    }
  }
  return text;
}

std::string unavailable_reason(const MultipathSnapshot& snapshot) {
  const bool is_near = std::any_of(
      snapshot.paths.begin(), snapshot.paths.end(),
      [](const PathSnapshot& path) { return path.on_its_way || path.last_error.empty(); });
  return snapshot.waits_because.empty() && is_near ? std::string() : describe_delay(snapshot);
}

std::string describe_delay(const MultipathSnapshot& snapshot) {
  if (!snapshot.waits_because.empty()) {
    return snapshot.waits_because;
  }
  std::string trouble;
  for (const PathSnapshot& path : snapshot.paths) {
    if (path.state == PathState::up) {
      return {};
    }
    if (path.last_error.empty()) {
      continue;  // on its first try
    }
    if (trouble.size() > kMaxTroubleBytes) {
      continue;
    }
    if (!trouble.empty()) {
      trouble += "; ";
    }
    const bool says_where = path.last_error.find(path.portal) != std::string::npos ||
                            path.last_error.find(path.address) != std::string::npos;
    trouble += says_where ? path.last_error
                          : fmt::format("LUN {} at {}: {}", path.lun, path.portal, path.last_error);
  }
  return trouble;
}

}  // namespace iscsi_blkback
