#include <chrono>

#include "multipath/path_policies.h"
#include "tests/simulation/host/events.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_guest.h"
#include "tests/simulation/host/simulated_host.h"
#include "tests/simulation/host/simulated_storage.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

namespace {

// For a while, the disk does without the path.
void remove_path(SimulatedWorld& world, SimulatedGuest& guest, std::uint32_t device_id,
                 const std::string& portal, Duration length) {
  guest.process()->run(
      [device_id, portal](ProductProcess& product) { product.remove_path(device_id, portal); });
  world.later(length, [&guest, device_id, portal] {
    if (SimulatedProcess* process = guest.process()) {
      process->run(
          [device_id, portal](ProductProcess& product) { product.add_path(device_id, portal); });
    }
  });
}

}  // namespace

EventOutcome operators_doing(SimulatedWorld& world, const PlannedEvent& event) {
  if (event.kind < EventKind::remove_path || event.kind > EventKind::kexec) {
    return {};
  }
  const auto& numbers = event.arguments;
  if (event.kind == EventKind::kexec) {
    SimulatedGuest& guest = world.guest(within(numbers[0], world.plan().guests.size()));
    if (guest.busy || guest.domain() == nullptr || !guest.host().xenstored().up()) {
      return false;
    }
    guest.kexec(numbers[1] != 0);
    return true;
  }
  const std::size_t disk = within(numbers[0], world.plan().disks.size());
  SimulatedGuest& guest = world.guest(guest_of(world.plan(), world.plan().disks[disk]));
  if (guest.domain() == nullptr || !guest.domain()->has_disk(disk) || guest.process() == nullptr ||
      guest.process()->product() == nullptr) {
    return false;
  }
  const std::uint32_t device_id = guest.domain()->node(disk).device_id;
  switch (event.kind) {
    case EventKind::remove_path: {
      const std::size_t target = target_of(world.plan(), world.plan().disks[disk]);
      const std::size_t portal = within(numbers[1], world.storage().portals(target));
      guest.workload(disk).lun().disturb();
      remove_path(world, guest, device_id, portal_address(target, portal).to_string(),
                  milliseconds(numbers[2]));
      return true;
    }
    case EventKind::change_policies: {
      const std::string selector = to_string(static_cast<PathSelectorKind>(within(numbers[1], 4)));
      const std::string grouping =
          to_string(static_cast<PathGroupingPolicy>(within(numbers[2], 5)));
      guest.process()->run([device_id, selector, grouping](ProductProcess& product) {
        product.set(device_id, "path_selector", selector);
        product.set(device_id, "path_grouping_policy", grouping);
      });
      return true;
    }
    case EventKind::burst:
      guest.workload(disk).burst(within(numbers[1] - 1, 64) + 1, numbers[2] != 0);
      return true;
    default:
      return {};
  }
}

}  // namespace iscsi_blkback
