#include "tests/simulation/host/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace iscsi_blkback {
namespace {

constexpr PlanField<PlannedWorld> kWorldFields[] = {
    {"run_ms", &PlannedWorld::run_ms, 4000},
    {"quiesce_ms", &PlannedWorld::quiesce_ms, 4000},
    {"settle_ms", &PlannedWorld::settle_ms, 0},
    {"command_timeout_ms", &PlannedWorld::command_timeout_ms, 1000},
    {"abort_timeout_ms", &PlannedWorld::abort_timeout_ms, 500},
    {"path_timeout_ms", &PlannedWorld::path_timeout_ms, 2000},
    {"max_commands", &PlannedWorld::max_commands, 64},
    {"polling_ms", &PlannedWorld::polling_ms, 2000},
    {"settings_varied", &PlannedWorld::settings_varied, 0},
    {"max_queues", &PlannedWorld::max_queues, 4},
    {"uneven_hosts", &PlannedWorld::uneven_hosts, 0},
    {"max_buffers_mb", &PlannedWorld::max_buffers_mb, 64},
    {"poll_max_us", &PlannedWorld::poll_max_us, 0},
};

constexpr PlanField<PlannedTarget> kTargetFields[] = {
    {"portals", &PlannedTarget::portals, 1},
    {"groups", &PlannedTarget::groups, 0},
    {"other_node", &PlannedTarget::other_node, 0},
    {"nodes", &PlannedTarget::nodes, 0},
    {"silent_groups", &PlannedTarget::silent_groups, 0},
    {"window", &PlannedTarget::window, 64},
    {"single_threaded", &PlannedTarget::single_threaded, 0},
    {"delay_us", &PlannedTarget::delay_us, 100},
    {"jitter_us", &PlannedTarget::jitter_us, 0},
    {"linger_ms", &PlannedTarget::linger_ms, 0},
    {"latency_us", &PlannedTarget::latency_us, 100},
    {"split", &PlannedTarget::split, 0},
    {"small_pdus", &PlannedTarget::small_pdus, 0},
    {"solicited", &PlannedTarget::solicited, 0},
    {"chap", &PlannedTarget::chap, 0},
    {"tpgs", &PlannedTarget::tpgs, 0},
};

constexpr PlanField<PlannedLun> kLunFields[] = {
    {"target", &PlannedLun::target, 0},
    {"also_at", &PlannedLun::also_at, 0},
    {"sectors", &PlannedLun::sectors, 64},
    {"identity", &PlannedLun::identity, 0},
    {"exclusive", &PlannedLun::exclusive, 0},
    {"key", &PlannedLun::key, 0},
    {"redirected_fences", &PlannedLun::redirected_fences, 0},
    {"vouched", &PlannedLun::vouched, 0},
    {"max_transfer", &PlannedLun::max_transfer, 0},
    {"no_path_retry_ms", &PlannedLun::no_path_retry_ms, 0},
    {"thin", &PlannedLun::thin, 0},
};

constexpr PlanField<PlannedGuest> kGuestFields[] = {
    {"host", &PlannedGuest::host, 0},
    {"ring_pages", &PlannedGuest::ring_pages, 1},
    {"queues", &PlannedGuest::queues, 1},
    {"segments", &PlannedGuest::segments, 0},
    {"think_us", &PlannedGuest::think_us, 20000},
    {"busy_at_closing", &PlannedGuest::busy_at_closing, 0},
    {"begins_ms", &PlannedGuest::begins_ms, 0},
};

constexpr PlanField<PlannedDisk> kDiskFields[] = {
    {"guest", &PlannedDisk::guest, 0},         {"lun", &PlannedDisk::lun, 0},
    {"other_way", &PlannedDisk::other_way, 0}, {"detached", &PlannedDisk::detached, 0},
    {"depth", &PlannedDisk::depth, 4},         {"contended", &PlannedDisk::contended, 0},
    {"writes", &PlannedDisk::writes, 5},       {"discards", &PlannedDisk::discards, 0},
};

template <class Record>
std::string values_text(const Record& record) {
  std::string text;
  for (const PlanField<Record>& field : fields_of(record)) {
    if (record.*field.member != field.simplest) {
      text += fmt::format(" {}={}", field.name, record.*field.member);
    }
  }
  return text;
}

std::string event_text(const PlannedEvent& event) {
  std::string text = fmt::format("at {} #{} {}", event.at_us, event.id, name_of(event.kind));
  const auto arguments = arguments_of(event.kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (event.arguments[i] != arguments[i].simplest) {
      text += fmt::format(" {}={}", arguments[i].name, event.arguments[i]);
    }
  }
  return text;
}

std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value)
                                                                  : std::nullopt;
}

std::string_view take_word(std::string_view& line) {
  const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const std::size_t end = std::min(line.find(' ', begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

// "name=number" words up to the end of the line; set returns false for a name that is unknown.
template <class Set>
bool parse_values(std::string_view line, Set set) {
  for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) {
      return false;
    }
    const auto value = parse_number(word.substr(equals + 1));
    if (!value || !set(word.substr(0, equals), *value)) {
      return false;
    }
  }
  return true;
}

template <class Record>
bool parse_record(std::string_view line, Record& record) {
  record = simplest<Record>();
  return parse_values(line, [&record](std::string_view name, std::int64_t value) {
    const auto fields = fields_of(record);
    const auto field = std::find_if(fields.begin(), fields.end(),
                                    [name](const auto& one) { return one.name == name; });
    if (field == fields.end() || value < 0) {
      return false;
    }
    record.*field->member = value;
    return true;
  });
}

bool parse_event(std::string_view line, PlannedEvent& event) {
  const auto at = parse_number(take_word(line));
  std::string_view id_word = take_word(line);
  if (!at || !id_word.starts_with('#')) {
    return false;
  }
  const auto id = parse_number(id_word.substr(1));
  const auto kind = event_kind_named(take_word(line));
  if (!id || !kind) {
    return false;
  }
  event = PlannedEvent{.at_us = *at, .id = *id, .kind = *kind};
  const auto arguments = arguments_of(*kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    event.arguments[i] = arguments[i].simplest;
  }
  return parse_values(line, [&](std::string_view name, std::int64_t value) {
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].name == name) {
        event.arguments[i] = value;
        return true;
      }
    }
    return false;
  });
}

bool parse_line(std::string_view line, Plan& plan) {
  const std::string_view type = take_word(line);
  if (type.empty() || type.starts_with('#')) {
    return true;
  }
  if (type == "seed") {
    const auto seed = parse_number(take_word(line));
    plan.seed = static_cast<std::uint64_t>(seed.value_or(0));
    return seed.has_value();
  }
  if (type == "world") {
    return parse_record(line, plan.world);
  }
  if (type == "target") {
    return parse_record(line, plan.targets.emplace_back());
  }
  if (type == "lun") {
    return parse_record(line, plan.luns.emplace_back());
  }
  if (type == "guest") {
    return parse_record(line, plan.guests.emplace_back());
  }
  if (type == "disk") {
    return parse_record(line, plan.disks.emplace_back());
  }
  return type == "at" && parse_event(line, plan.events.emplace_back());
}

}  // namespace

std::span<const PlanField<PlannedWorld>> fields_of(const PlannedWorld&) {
  return kWorldFields;
}
std::span<const PlanField<PlannedTarget>> fields_of(const PlannedTarget&) {
  return kTargetFields;
}
std::span<const PlanField<PlannedLun>> fields_of(const PlannedLun&) {
  return kLunFields;
}
std::span<const PlanField<PlannedGuest>> fields_of(const PlannedGuest&) {
  return kGuestFields;
}
std::span<const PlanField<PlannedDisk>> fields_of(const PlannedDisk&) {
  return kDiskFields;
}

std::string to_text(const Plan& plan) {
  std::string text = fmt::format("seed {}\nworld{}\n", plan.seed, values_text(plan.world));
  const auto add = [&text](const char* type, const auto& records) {
    for (const auto& record : records) {
      text += fmt::format("{}{}\n", type, values_text(record));
    }
  };
  add("target", plan.targets);
  add("lun", plan.luns);
  add("guest", plan.guests);
  add("disk", plan.disks);
  for (const PlannedEvent& event : plan.events) {
    text += event_text(event) + "\n";
  }
  return text;
}

Result<Plan> parse_plan(std::string_view text) {
  Plan plan;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++number;
    if (!parse_line(line, plan)) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("line {} is no line of a plan: \"{}\"", number, line));
    }
  }
  if (plan.targets.empty() || plan.luns.empty() || plan.guests.empty() || plan.disks.empty()) {
    return fail(ErrorCode::invalid_argument,
                "a plan needs at least one target, one LUN, one guest and one disk");
  }
  std::stable_sort(plan.events.begin(), plan.events.end(),
                   [](const PlannedEvent& a, const PlannedEvent& b) { return a.at_us < b.at_us; });
  return plan;
}

}  // namespace iscsi_blkback
