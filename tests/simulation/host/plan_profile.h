// The distributions that plans are drawn from.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tests/simulation/host/plan.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

struct EventWeight {
  EventKind kind;
  std::uint64_t weight = 1;
};

struct PlanProfile {
  std::string_view name;
  std::vector<EventWeight> weights;
  // Changes the world that was drawn; null: it stays.
  void (*shape)(Plan& plan, SimRandom& random) = nullptr;
  // ... and an event; null: likewise.
  void (*shape_event)(PlannedEvent& event) = nullptr;
  // Between two events, on average.
  std::int64_t shortest_mean_ms = 100;
  std::int64_t longest_mean_ms = 700;
  std::uint64_t share = 1;  // of the mixture of all
};

[[nodiscard]] std::span<const PlanProfile> plan_profiles();

}  // namespace iscsi_blkback
