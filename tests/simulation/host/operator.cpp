#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "multipath/groups/path_policies.h"
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

// A disk of another guest waits for the LUN, uses it for a while when it gets it, and goes. What it
// writes is of no interest: nothing of a guest that is still there may come after it.
class Rival : public std::enable_shared_from_this<Rival> {
 public:
  Rival(SimulatedWorld& world, SimulatedHost& host, std::size_t lun, std::size_t target)
      : world_(world),
        host_(host),
        lun_(lun),
        number_(lun_number(lun)),
        target_(target_name(target)),
        disk_(host.run_directory(), world.plan(), lun) {}

  void wait(Duration held) {
    const TimePoint now = world_.reactor().now();
    if (world_.weather_is_over()) {
      return;
    }
    if (!disk_.has_the_lun(now)) {
      world_.later(milliseconds(5), [self = shared_from_this(), held] { self->wait(held); });
      return;
    }
    world_.count("LUN given to a rival");
    disk_.write();
    check();
    use(now + held);
  }

 private:
  void use(TimePoint until) {
    if (!world_.weather_is_over() && world_.reactor().now() < until) {
      world_.later(milliseconds(5), [self = shared_from_this(), until] { self->use(until); });
    }
  }

  void check() {
    check_saved_guests();
    for (SimulatedProcess* process : host_.processes()) {
      if (process->product() != nullptr && process->product()->has_written(target_, number_) &&
          !process->product()->guest_has_ended() && host_.domain_exists(process->guest())) {
        world_.fail(Rule::given_away,
                    fmt::format("a disk of another guest has got LUN {}, and the disk of domain {} "
                                "that has written there is not closed",
                                number_ - 1, process->guest()));
      }
    }
  }

  // Their processes have ended, in order.
  void check_saved_guests() {
    const Duration kept = milliseconds(world_.plan().world.quiesce_ms);
    for (std::size_t number = 0; number < world_.plan().guests.size(); ++number) {
      SimulatedGuest& guest = world_.guest(number);
      if (!guest.saved_at() || &guest.host() != &host_ || guest.process_died() ||
          world_.reactor().now() >= *guest.saved_at() + kept) {
        continue;
      }
      for (const std::size_t disk : guest.attached()) {
        if (guest.workload(disk).lun_number() == lun_ && !guest.is_leaving(disk) &&
            guest.workload(disk).counts_on_its_lun()) {
          world_.fail(Rule::given_away,
                      fmt::format("a disk of another guest has got LUN {} of guest {}, which was "
                                  "saved a moment ago",
                                  lun_, number));
        }
      }
    }
  }

  SimulatedWorld& world_;
  SimulatedHost& host_;
  const std::size_t lun_;
  const std::uint16_t number_;
  const std::string target_;
  RivalDisk disk_;
};

}  // namespace

EventOutcome operators_doing(SimulatedWorld& world, const PlannedEvent& event) {
  if (event.kind < EventKind::remove_path || event.kind > EventKind::rival) {
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
  if (event.kind == EventKind::rival) {
    const std::size_t lun = guest.workload(disk).lun_number();
    guest.workload(disk).lun().disturb();
    std::make_shared<Rival>(world, guest.host(), lun,
                            within(world.plan().luns[lun].target, world.plan().targets.size()))
        ->wait(milliseconds(numbers[1]));
    return true;
  }
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
