#include "multipath/groups/path_selector.h"

#include "base/result.h"
#include "base/words.h"
#include "multipath/groups/historical_service_time_selector.h"
#include "multipath/groups/load_selectors.h"
#include "multipath/groups/round_robin_selector.h"

namespace iscsi_blkback {
namespace {

constexpr Word<PathSelectorKind> kSelectorWords[] = {
    {"round-robin", PathSelectorKind::round_robin},
    {"queue-length", PathSelectorKind::queue_length},
    {"service-time", PathSelectorKind::service_time},
    {"historical-service-time", PathSelectorKind::historical_service_time},
};

}  // namespace

const char* to_string(PathSelectorKind kind) {
  return word_for<kSelectorWords>(kind);
}

std::optional<PathSelectorKind> path_selector_named(std::string_view name) {
  if (name.ends_with(" 0")) {
    name.remove_suffix(2);
  }
  return named<kSelectorWords>(name);
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
