#include <chrono>
#include <functional>

#include "tests/simulation/host/events.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_storage.h"
#include "tests/support/sim_network.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

// Where an event happens: between one host, or all, and one portal of a target.
struct Place {
  SimulatedWorld& world;
  std::int64_t host = 0;
  SocketAddress portal;

  // Sets something for the connections concerned.
  void set(const std::function<void(SimNetwork&)>& what) const {
    SimNetwork& network = world.reactor().network();
    for (unsigned computer = 0; computer < SimulatedWorld::kHosts; ++computer) {
      if (host >= static_cast<std::int64_t>(SimulatedWorld::kHosts) ||
          within(host, SimulatedWorld::kHosts) == computer) {
        network.choose_computer(computer);
        what(network);
      }
    }
  }
  // ... and takes it back after a while.
  void set_for(Duration length, const std::function<void(SimNetwork&)>& what,
               const std::function<void(SimNetwork&)>& back) const {
    set(what);
    world.later(length, [place = *this, back] { place.set(back); });
  }
};

Place place_of(SimulatedWorld& world, const PlannedEvent& event) {
  const std::size_t target = within(event.arguments[1], world.storage().targets());
  const std::size_t portal = within(event.arguments[2], world.storage().portals(target));
  world.storage().disturb_target(target);
  return {world, event.arguments[0], portal_address(target, portal)};
}

void reset(const Place& place, SimResetPolicy policy) {
  place.set([&](SimNetwork& network) {
    network.set_reset_policy(place.portal, policy);
    network.reset_connections(place.portal);
  });
  place.world.later(milliseconds(1), [place] {
    place.set([&](SimNetwork& network) {
      network.set_reset_policy(place.portal, SimResetPolicy::random);
    });
  });
}

void refuse(const Place& place, Duration length) {
  place.set_for(
      length,
      [&](SimNetwork& network) {
        network.set_refusing(place.portal, true);
        network.reset_connections(place.portal);
      },
      [portal = place.portal](SimNetwork& network) { network.set_refusing(portal, false); });
}

void drop(const Place& place, std::int64_t direction, Duration length) {
  const bool to_server = direction != 2;
  const bool to_client = direction != 1;
  const auto drop_these = [portal = place.portal, to_server, to_client](bool dropping) {
    return [portal, to_server, to_client, dropping](SimNetwork& network) {
      if (to_server) {
        network.set_dropping(portal, SimDirection::to_server, dropping);
      }
      if (to_client) {
        network.set_dropping(portal, SimDirection::to_client, dropping);
      }
    };
  };
  place.set_for(length, drop_these(true), drop_these(false));
}

void hold(const Place& place, SimDirection direction, Duration length) {
  const auto hold_it = [portal = place.portal, direction](bool held) {
    return [portal, direction, held](SimNetwork& network) {
      network.set_held(portal, direction, held);
    };
  };
  place.set_for(length, hold_it(true), hold_it(false));
}

void slow_down(const Place& place, Duration length, Duration latency, Duration usual) {
  place.set_for(
      length, [&](SimNetwork& network) { network.set_latency(place.portal, latency, latency / 2); },
      [portal = place.portal, usual](SimNetwork& network) {
        network.set_latency(portal, usual, usual / 4);
      });
}

// A path goes for long, and what it carried arrives when it has been given up.
void lose_path(const Place& place, Duration length, Duration held) {
  place.set([&](SimNetwork& network) {
    network.set_refusing(place.portal, true);
    network.set_reset_policy(place.portal, SimResetPolicy::everything);
  });
  hold(place, SimDirection::to_server, held);
  place.world.later(length + held, [place] {
    place.set([&](SimNetwork& network) {
      network.set_refusing(place.portal, false);
      network.set_reset_policy(place.portal, SimResetPolicy::random);
    });
  });
}

}  // namespace

EventOutcome network_weather(SimulatedWorld& world, const PlannedEvent& event,
                             SimRandom& /*random*/) {
  const auto& numbers = event.arguments;
  switch (event.kind) {
    case EventKind::reset_connections:
      reset(place_of(world, event), static_cast<SimResetPolicy>(within(numbers[3], 3)));
      return true;
    case EventKind::refuse:
      refuse(place_of(world, event), milliseconds(numbers[3]));
      return true;
    case EventKind::drop:
      drop(place_of(world, event), numbers[3], milliseconds(numbers[4]));
      return true;
    case EventKind::hold:
      hold(place_of(world, event),
           numbers[3] == 0 ? SimDirection::to_server : SimDirection::to_client,
           milliseconds(numbers[4]));
      return true;
    case EventKind::slow_link: {
      const std::size_t target = within(numbers[1], world.storage().targets());
      slow_down(place_of(world, event), milliseconds(numbers[3]), milliseconds(numbers[4]),
                microseconds(world.plan().targets[target].latency_us));
      return true;
    }
    case EventKind::refuse_all: {
      const std::size_t target = within(numbers[1], world.storage().targets());
      for (std::size_t portal = 0; portal < world.storage().portals(target); ++portal) {
        PlannedEvent each = event;
        each.arguments[2] = static_cast<std::int64_t>(portal);
        refuse(place_of(world, each), milliseconds(numbers[2]));
      }
      return true;
    }
    case EventKind::lose_path:
      lose_path(place_of(world, event), milliseconds(numbers[3]), milliseconds(numbers[4]));
      return true;
    default:
      return {};
  }
}

void end_network_weather(SimulatedWorld& world) {
  for (std::size_t target = 0; target < world.storage().targets(); ++target) {
    const microseconds usual(world.plan().targets[target].latency_us);
    for (std::size_t portal = 0; portal < world.storage().portals(target); ++portal) {
      const Place place{world, SimulatedWorld::kHosts, portal_address(target, portal)};
      place.set([&](SimNetwork& network) {
        network.set_dropping(place.portal, false);
        network.set_held(place.portal, SimDirection::to_server, false);
        network.set_held(place.portal, SimDirection::to_client, false);
        network.set_refusing(place.portal, false);
        network.set_latency(place.portal, usual, usual / 4);
      });
    }
  }
}

}  // namespace iscsi_blkback
