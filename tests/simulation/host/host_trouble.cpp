#include <chrono>

#include "tests/simulation/host/events.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_guest.h"
#include "tests/simulation/host/simulated_host.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

namespace {

// Whatever the guest's LUNs make wait from now on may have a reason.
void disturb(SimulatedGuest& guest) {
  for (const auto& [disk, workload] : guest.workloads()) {
    workload->lun().disturb();
  }
}

void disturb_host(SimulatedWorld& world, SimulatedHost& host) {
  for (std::size_t number = 0; number < world.plan().guests.size(); ++number) {
    if (&world.guest(number).host() == &host) {
      disturb(world.guest(number));
    }
  }
}

// Of one host, or of all.
bool at_hosts(SimulatedWorld& world, std::int64_t which,
              const std::function<void(SimulatedHost&)>& what) {
  for (std::size_t number = 0; number < SimulatedWorld::kHosts; ++number) {
    if (which >= static_cast<std::int64_t>(SimulatedWorld::kHosts) ||
        within(which, SimulatedWorld::kHosts) == number) {
      disturb_host(world, world.host(number));
      what(world.host(number));
    }
  }
  return true;
}

}  // namespace

EventOutcome host_trouble(SimulatedWorld& world, const PlannedEvent& event, SimRandom& random) {
  if (event.kind < EventKind::kill_process || event.kind > EventKind::domctl_fails) {
    return {};
  }
  const auto& numbers = event.arguments;
  SimulatedGuest& guest = world.guest(within(numbers[0], world.plan().guests.size()));
  SimulatedProcess* process = guest.process();
  const bool runs = process != nullptr && process->product() != nullptr;
  switch (event.kind) {
    case EventKind::kill_process:
      if (runs) {
        disturb(guest);
        guest.process_dies();
        process->kill();
      }
      return runs;
    case EventKind::kill_all_processes:
      return at_hosts(world, numbers[0], [&world](SimulatedHost& host) {
        for (std::size_t number = 0; number < world.plan().guests.size(); ++number) {
          world.guest(number).process_dies();
        }
        for (SimulatedProcess* each : host.processes()) {
          each->kill();
        }
      });
    case EventKind::terminate_process:
      if (runs) {
        disturb(guest);
        guest.process_dies();
        process->terminate();
      }
      return runs;
    case EventKind::stall_process:
      if (runs) {
        disturb(guest);
        process->stall(static_cast<SimulatedProcess::Threads>(within(numbers[1], 3)),
                       milliseconds(numbers[2]));
      }
      return runs;
    // For everything that runs there, which goes on with all its timers overdue; as when the virtual
    // machine that the host is was stopped for a while. The network and the other host go on.
    case EventKind::clock_jumps:
      return at_hosts(world, numbers[0], [&numbers](SimulatedHost& host) {
        for (SimulatedProcess* each : host.processes()) {
          each->stall(SimulatedProcess::Threads::both, milliseconds(numbers[1]));
        }
      });
    case EventKind::kill_service:
      return at_hosts(world, numbers[0], [&numbers](SimulatedHost& host) {
        host.kill_service(milliseconds(numbers[1]));
      });
    case EventKind::xenstored_dies:
      return at_hosts(world, numbers[0], [&numbers](SimulatedHost& host) {
        host.stop_xenstored(milliseconds(numbers[1]));
      });
    case EventKind::store_fails:
      return at_hosts(world, numbers[0], [&](SimulatedHost& host) {
        host.xenstored().store_calls.fail_next(numbers[1], random.next());
      });
    case EventKind::domctl_fails:
      return at_hosts(world, numbers[0], [&](SimulatedHost& host) {
        host.xenstored().domain_calls.fail_next(numbers[1], random.next());
      });
    default:
      return {};
  }
}

void end_host_trouble(SimulatedWorld& world) {
  for (std::size_t number = 0; number < SimulatedWorld::kHosts; ++number) {
    SimulatedHost& host = world.host(number);
    host.xenstored().store_calls.stop();
    host.xenstored().domain_calls.stop();
    host.start_xenstored();
  }
}

}  // namespace iscsi_blkback
