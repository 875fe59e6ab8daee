#include <chrono>
#include <optional>

#include "tests/simulation/host/events.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_guest.h"
#include "tests/simulation/host/simulated_host.h"
#include "tests/simulation/host/simulated_storage.h"
#include "tests/simulation/host/toolstack.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

namespace {

SimulatedHost& host_for(SimulatedWorld& world, const SimulatedHost& now, std::int64_t other) {
  return world.host((now.number() + (other != 0 ? 1 : 0)) % SimulatedWorld::kHosts);
}

// Ends the guest, in the way of the event, and creates it again.
bool end_guest(SimulatedWorld& world, Toolstack& toolstack, SimulatedGuest& guest,
               const PlannedEvent& event) {
  const auto& numbers = event.arguments;
  std::optional<ShutdownReason> shut_down;
  if (event.kind == EventKind::reboot) {
    shut_down = ShutdownReason::reboot;
  } else if (event.kind == EventKind::crash) {
    shut_down = ShutdownReason::crash;
  }
  return toolstack.destroy(guest, shut_down,
                           {.host = host_for(world, guest.host(), numbers[2]),
                            .same_domid = numbers[1] != 0,
                            .pause = milliseconds(numbers[3])});
}

EventOutcome disk_event(SimulatedWorld& world, Toolstack& toolstack, const PlannedEvent& event) {
  const auto& numbers = event.arguments;
  const std::size_t disk = within(numbers[0], world.plan().disks.size());
  SimulatedGuest& guest = world.guest(guest_of(world.plan(), world.plan().disks[disk]));
  const auto way = static_cast<Toolstack::Detach>(within(numbers[1], 3));
  if (event.kind == EventKind::detach) {
    return toolstack.detach(guest, disk, way, milliseconds(numbers[2]));
  }
  const std::optional<std::size_t> user = guest.workload(disk).lun().user;
  if (!user) {
    return toolstack.attach(guest, disk);
  }
  SimulatedGuest& owner = world.guest(guest_of(world.plan(), world.plan().disks[*user]));
  return toolstack.hand_over(owner, guest, disk, way);
}

}  // namespace

EventOutcome toolstack_event(SimulatedWorld& world, Toolstack& toolstack,
                             const PlannedEvent& event) {
  if (event.kind < EventKind::checkpoint) {
    return {};
  }
  toolstack.forget_done();
  if (event.kind == EventKind::detach || event.kind == EventKind::hand_over) {
    return disk_event(world, toolstack, event);
  }
  const auto& numbers = event.arguments;
  SimulatedGuest& guest = world.guest(within(numbers[0], world.plan().guests.size()));
  const auto disturb = [&guest](bool begun) {
    for (const auto& [disk, workload] : guest.workloads()) {
      if (begun) {
        workload->lun().disturb();
      }
    }
    return begun;
  };
  switch (event.kind) {
    case EventKind::checkpoint:
      return disturb(toolstack.checkpoint(guest, milliseconds(numbers[1])));
    case EventKind::save_restore:
      return disturb(toolstack.save_and_restore(guest, host_for(world, guest.host(), numbers[1]),
                                                milliseconds(numbers[2])));
    case EventKind::migrate:
    case EventKind::failed_migration: {
      constexpr milliseconds kShortestDowntime{60};  // after what takes 40 ms in any case
      const bool fails = event.kind == EventKind::failed_migration;
      return disturb(
          toolstack.migrate(guest, {.to = host_for(world, guest.host(), numbers[1]),
                                    .precopy = milliseconds(numbers[3]),
                                    .downtime = kShortestDowntime + milliseconds(numbers[2]),
                                    .fails = fails,
                                    .fails_late = fails && numbers[4] != 0}));
    }
    case EventKind::pause:
      return disturb(toolstack.pause(guest, milliseconds(numbers[1])));
    case EventKind::reboot:
    case EventKind::crash:
    case EventKind::destroy:
      return end_guest(world, toolstack, guest, event);
    case EventKind::kill_and_destroy: {
      SimulatedProcess* process = guest.process();
      const bool begun = end_guest(world, toolstack, guest, event);
      if (begun && process != nullptr) {
        process->kill();
      }
      return begun;
    }
    default:
      return {};
  }
}

}  // namespace iscsi_blkback
