#include <algorithm>
#include <chrono>
#include <iterator>

#include "tests/simulation/host/events.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_storage.h"
#include "tests/support/sim_network.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

namespace {

// One target and how its events work on it.
class TargetWeather {
 public:
  TargetWeather(SimulatedWorld& world, std::size_t number, SimRandom& random)
      : world_(world), number_(number), target_(world.storage().target(number)), random_(random) {
    world.storage().disturb_target(number);
  }

  void restart(Duration length) {
    target_.stop();
    world_.later(length, [&target = target_] { target.start(); });
  }

  void close_portal(std::int64_t at, Duration length) {
    const std::size_t portal = portal_of(at);
    target_.close_portal(portal);
    world_.later(length, [&target = target_, portal] { target.open_portal(portal); });
  }

  void hang(Duration length) {
    target_.set_hung(true);
    world_.later(length, [&target = target_] { target.set_hung(false); });
  }

  void be_busy(std::int64_t count, bool full) {
    SimFault fault;
    fault.count = static_cast<std::uint32_t>(count);
    fault.status = full ? ScsiStatus::task_set_full : ScsiStatus::busy;
    target_.inject(fault);
  }

  void be_not_ready(std::int64_t at, std::int64_t count, std::int64_t code) {
    constexpr std::uint16_t kCodes[] = {0x0401, 0x040a, 0x040b, 0x040c};
    SimFault fault = fault_at(at, count);
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(SenseKey::not_ready, kCodes[within(code, std::size(kCodes))]);
    target_.inject(fault);
  }

  // Commands that a living target does not answer; how: 0 nor executes, 1 executes, 2 would answer
  // and execute much later.
  void stick(std::int64_t at, std::int64_t count, std::int64_t how, Duration length) {
    SimFault fault = fault_at(at, count);
    fault.execute = how != 0;
    fault.hold = how == 2;
    fault.answer = how == 2;
    target_.inject(fault);
    release_held_after(length);
  }

  // Writes stay in the target, their connection goes, and later they strike.
  void lose_writes(std::int64_t at, std::int64_t count, Duration until_released, Duration refused) {
    const std::size_t portal = portal_of(at);
    SimFault fault;
    fault.matches = [portal](const SimCommand& command) {
      return command.portal == portal && is_write(command);
    };
    fault.count = static_cast<std::uint32_t>(count);
    fault.hold = true;
    fault.execute = true;
    target_.inject(fault);
    const auto until_reset = milliseconds(random_.below(60));
    world_.later(until_reset, [&world = world_, &target = target_, portal, refused] {
      for (unsigned computer = 0; computer < SimulatedWorld::kHosts; ++computer) {
        SimNetwork& network = world.reactor().network();
        network.choose_computer(computer);
        network.set_refusing(target.address(portal), true);
        network.reset_connections(target.address(portal));
      }
      world.later(refused, [&world, &target, portal] {
        for (unsigned computer = 0; computer < SimulatedWorld::kHosts; ++computer) {
          world.reactor().network().choose_computer(computer);
          world.reactor().network().set_refusing(target.address(portal), false);
        }
      });
    });
    release_held_after(until_reset + until_released);
  }

  // Aborts or resets are not answered, or refused, or answered late. how: the response's number.
  void spoil_functions(bool reset, std::int64_t how, Duration length) {
    const TaskFunction which = reset ? TaskFunction::logical_unit_reset : TaskFunction::abort_task;
    constexpr std::uint8_t kResponses[] = {0, 1, 5, 255};
    SimFunctionFault fault;
    fault.answer = how != 0;
    fault.execute = false;
    fault.response = kResponses[within(how, std::size(kResponses))];
    target_.fault_functions(which, fault);
    world_.later(length,
                 [&target = target_, which] { target.fault_functions(which, std::nullopt); });
  }

  void add_unit_attention(std::int64_t code) {
    constexpr std::uint16_t kCodes[] = {0x2900, 0x2903, 0x2a01, 0x2a06,
                                        0x2a09, 0x2800, 0x3f03, 0x3f0e};
    target_.add_unit_attention(kCodes[within(code, std::size(kCodes))]);
  }

  // Half of the portals go with their controller; the other one answers not ready while it takes
  // over, and then says that something has happened.
  void fail_over(std::int64_t half, Duration length) {
    for (std::size_t portal = within(half, 2); portal < world_.storage().portals(number_);
         portal += 2) {
      close_portal(static_cast<std::int64_t>(portal), length);
    }
    SimFault taking_over;
    taking_over.count = static_cast<std::uint32_t>(random_.between(1, 30));
    taking_over.status = ScsiStatus::check_condition;
    taking_over.sense =
        make_sense(SenseKey::not_ready, random_.one_in(2) ? std::uint16_t{0x0401} : 0x040a);
    target_.inject(taking_over);
    world_.later(length / 2, [&target = target_] { target.add_unit_attention(0x2a06); });
  }

  // A target port group leaves active by way of transitioning, and comes back so.
  void change_access(std::int64_t group, std::int64_t state, Duration length) {
    constexpr AccessState kStates[] = {AccessState::standby, AccessState::unavailable,
                                       AccessState::active_non_optimized};
    const auto tag = static_cast<std::uint16_t>(within(group, 2) + 1);
    const Duration transition = milliseconds(random_.below(500));
    set_access(tag, AccessState::transitioning, {});
    set_access(tag, kStates[within(state, std::size(kStates))], transition);
    set_access(tag, AccessState::transitioning, transition + length);
    set_access(tag, tag == 1 ? AccessState::active_optimized : AccessState::active_non_optimized,
               transition * 2 + length);
  }

  bool swap_luns(Duration length) {
    world_.storage().map_luns(number_, true);
    world_.later(length, [&storage = world_.storage(), number = number_] {
      storage.map_luns(number, false);
    });
    return true;
  }

  void slow_down(Duration length, Duration delay, bool single_threaded) {
    SimTargetOptions& options = target_.options();
    options.command_delay = delay;
    options.single_threaded = options.single_threaded || single_threaded;
    world_.later(length, [&options, usual = world_.plan().targets[number_]] {
      options.command_delay = std::chrono::microseconds(usual.delay_us);
      options.single_threaded = usual.single_threaded != 0;
    });
  }

  void make_window_small(std::int64_t window, Duration length) {
    SimTargetOptions& options = target_.options();
    options.window = static_cast<std::uint32_t>(within(window, 4) + 1);
    world_.later(length, [&options, usual = world_.plan().targets[number_]] {
      options.window = static_cast<std::uint32_t>(bounded(usual.window, 1, 256));
    });
  }

  // To another node, if there is one, else to another portal of the same.
  bool redirect(std::int64_t from, std::int64_t to, Duration length) {
    const std::size_t portal = portal_of(from);
    const std::size_t other =
        world_.storage().portal_of_other_node(number_).value_or(portal_of(to));
    if (other == portal) {
      return false;
    }
    target_.redirect_logins(portal, target_.address(other).to_string() + ",1");
    world_.later(length, [&target = target_, portal] { target.redirect_logins(portal, ""); });
    return true;
  }

 private:
  [[nodiscard]] std::size_t portal_of(std::int64_t at) const {
    return within(at, world_.storage().portals(number_));
  }

  [[nodiscard]] SimFault fault_at(std::int64_t at, std::int64_t count) const {
    SimFault fault;
    fault.matches = [portal = portal_of(at)](const SimCommand& command) {
      return command.portal == portal;
    };
    fault.count = static_cast<std::uint32_t>(count);
    return fault;
  }

  void release_held_after(Duration length) {
    world_.later(length, [&target = target_] { target.release_held(); });
  }

  void set_access(std::uint16_t tag, AccessState state, Duration delay) {
    world_.later(delay, [&world = world_, number = number_, tag, state] {
      if (!world.weather_is_over()) {
        world.storage().set_access(number, tag, state);
        world.storage().target(number).add_unit_attention(0x2a06);
      }
    });
  }

  SimulatedWorld& world_;
  const std::size_t number_;
  SimTarget& target_;
  SimRandom& random_;
};

}  // namespace

EventOutcome target_weather(SimulatedWorld& world, const PlannedEvent& event, SimRandom& random) {
  if (event.kind < EventKind::target_restart || event.kind > EventKind::redirect) {
    return {};
  }
  const auto& numbers = event.arguments;
  const std::size_t number = within(numbers[0], world.storage().targets());
  TargetWeather target(world, number, random);
  switch (event.kind) {
    case EventKind::target_restart:
      target.restart(milliseconds(numbers[1]));
      return true;
    case EventKind::close_portal:
      target.close_portal(numbers[1], milliseconds(numbers[2]));
      return true;
    case EventKind::hang:
      target.hang(milliseconds(numbers[1]));
      return true;
    case EventKind::busy:
      target.be_busy(numbers[1], numbers[2] != 0);
      return true;
    case EventKind::not_ready:
      target.be_not_ready(numbers[1], numbers[2], numbers[3]);
      return true;
    case EventKind::stick:
      target.stick(numbers[1], numbers[2], numbers[3], milliseconds(numbers[4]));
      return true;
    case EventKind::lose_writes:
      target.lose_writes(numbers[1], numbers[2], milliseconds(numbers[3]),
                         milliseconds(numbers[4]));
      return true;
    case EventKind::spoil_functions:
      target.spoil_functions(numbers[1] != 0, numbers[2], milliseconds(numbers[3]));
      return true;
    case EventKind::unit_attention:
      target.add_unit_attention(numbers[1]);
      return true;
    case EventKind::controller_failover:
      target.fail_over(numbers[1], milliseconds(numbers[2]));
      return true;
    case EventKind::access_change:
      if (world.plan().targets[number].tpgs == 0) {
        return false;
      }
      target.change_access(numbers[1], numbers[2], milliseconds(numbers[3]));
      return true;
    case EventKind::swap_luns:
      return target.swap_luns(milliseconds(numbers[1]));
    case EventKind::rename_lun:
      if (!world.storage().rename_luns(number, numbers[1] != 0)) {
        return false;
      }
      world.storage().target(number).add_unit_attention(0x3f03);
      return true;
    case EventKind::slow_target:
      target.slow_down(milliseconds(numbers[1]), milliseconds(numbers[2]), numbers[3] != 0);
      return true;
    case EventKind::small_window:
      target.make_window_small(numbers[1], milliseconds(numbers[2]));
      return true;
    case EventKind::redirect:
      return target.redirect(numbers[1], numbers[2], milliseconds(numbers[3]));
    default:
      return {};
  }
}

}  // namespace iscsi_blkback
