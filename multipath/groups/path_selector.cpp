#include "multipath/groups/path_selector.h"

#include <array>
#include <utility>

#include "base/result.h"
#include "multipath/groups/historical_service_time_selector.h"
#include "multipath/groups/load_selectors.h"
#include "multipath/groups/round_robin_selector.h"

namespace iscsi_blkback {
namespace {

constexpr std::array<std::pair<PathSelectorKind, const char*>, 4> kSelectorNames = {{
    {PathSelectorKind::round_robin, "round-robin"},
    {PathSelectorKind::queue_length, "queue-length"},
    {PathSelectorKind::service_time, "service-time"},
    {PathSelectorKind::historical_service_time, "historical-service-time"},
}};

}  // namespace

const char* to_string(PathSelectorKind kind) {
  for (const auto& [known, name] : kSelectorNames) {
    if (known == kind) {
      return name;
    }
  }
  return "unknown";
}

std::optional<PathSelectorKind> path_selector_named(std::string_view name) {
  if (name.ends_with(" 0")) {
    name.remove_suffix(2);
  }
  for (const auto& [kind, known] : kSelectorNames) {
    if (name == known) {
      return kind;
    }
  }
  return std::nullopt;
}

std::unique_ptr<PathSelector> make_path_selector(PathSelectorKind kind, std::uint32_t rr_min_io) {
  switch (kind) {
    case PathSelectorKind::round_robin:
      return std::make_unique<RoundRobinSelector>(rr_min_io);
    case PathSelectorKind::queue_length:
      return std::make_unique<QueueLengthSelector>();
    case PathSelectorKind::service_time:
      return std::make_unique<ServiceTimeSelector>();
    case PathSelectorKind::historical_service_time:
      return std::make_unique<HistoricalServiceTimeSelector>();
  }
  ISCSI_BLKBACK_ASSERT(false && "unknown path selector");
  return nullptr;
}

}  // namespace iscsi_blkback
