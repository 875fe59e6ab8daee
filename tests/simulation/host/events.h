// What the events of a plan do, one function for each area. Each returns whether the event has
// changed anything (an event may come when there is nothing for it to happen to), or nothing when
// its kind is of another area. random: the event's own. What an event has begun ends by itself, or
// with end_weather().
#pragma once

#include <optional>

#include "tests/simulation/host/plan.h"
#include "tests/simulation/host/simulated_world.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

class Toolstack;

using EventOutcome = std::optional<bool>;

[[nodiscard]] EventOutcome network_weather(SimulatedWorld& world, const PlannedEvent& event,
                                           SimRandom& random);
[[nodiscard]] EventOutcome target_weather(SimulatedWorld& world, const PlannedEvent& event,
                                          SimRandom& random);
[[nodiscard]] EventOutcome host_trouble(SimulatedWorld& world, const PlannedEvent& event,
                                        SimRandom& random);
[[nodiscard]] EventOutcome operators_doing(SimulatedWorld& world, const PlannedEvent& event);
[[nodiscard]] EventOutcome toolstack_event(SimulatedWorld& world, Toolstack& toolstack,
                                           const PlannedEvent& event);

// Whatever is still wrong with the network and the hosts is not any more.
void end_network_weather(SimulatedWorld& world);
void end_host_trouble(SimulatedWorld& world);

}  // namespace iscsi_blkback
