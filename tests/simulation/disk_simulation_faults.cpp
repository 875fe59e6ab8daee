#include <iterator>

#include "tests/simulation/disk_simulation_impl.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// In runs with fences of the logical unit: how long something may be held back in the network, and
// after that in a hung target; a slow path adds to them. Together shorter than fence_settle_time
// (disk_simulation_world.cpp).
constexpr Duration kLongestHold = milliseconds(2400);
constexpr Duration kLongestHang = milliseconds(400);

}  // namespace

void Simulation::plan_faults() {
  Duration at = milliseconds(50);
  // Where only fences of the logical unit help, each fault takes a path away for long.
  const Duration mean = milliseconds(only_lun_fences() ? 1500 : random_.between(50, 800));
  while (at < kFaultTime) {
    const std::uint64_t number = ++result_.planned_faults;
    const std::uint64_t own = random_.next();
    if (!options_.only_faults || options_.only_faults->contains(number)) {
      later(at, [this, own] {
        if (!faults_ended_) {
          ++result_.faults;
          random_ = SimRandom(own);
          inject_fault();
        }
      });
    }
    at += random_duration(mean * 2) + microseconds(1);
  }
}

// Mostly short.
Duration Simulation::outage() {
  if (lun_fences_ != LunFences::none && random_.one_in(2)) {
    return random_duration(seconds(8));
  }
  return random_.one_in(4) ? random_duration(seconds(6)) : random_duration(milliseconds(400));
}

void Simulation::inject_fault() {
  SimNetwork& network = reactor_.network();
  const std::size_t portal = random_.below(portals_);
  const SocketAddress where = address(portal);
  const Duration length = outage();
  if (lun_fences_ != LunFences::none &&
      (only_lun_fences() ? !random_.one_in(4) : random_.one_in(3))) {
    lose_path_with_bytes_under_way(portal);
    return;
  }
  if (options_.canary == Canary::no_marks && random_.one_in(2)) {
    lose_disk(random_.below(disks_.size()), portal, length);
    return;
  }
  if (contended_ && !random_.one_in(4)) {
    lose_writes(portal, length);
    return;
  }
  switch (random_.below(31)) {
    case 0:
    case 1:
      network.reset_connections(where);
      return;
    case 2:
      refuse(where, length);
      return;
    case 3:
      network.set_dropping(where, true);
      later(length, [this, where] { reactor_.network().set_dropping(where, false); });
      return;
    case 4:
      drop_one_direction(where, length);
      return;
    case 5:
      hold_back(where, SimDirection::to_server, length);
      if (random_.one_in(2)) {
        later(random_duration(length + microseconds(1)),
              [this, where] { reactor_.network().reset_connections(where); });
      }
      return;
    case 6:  // the process of the target dies and comes back
      target_->stop();
      later(length, [this] { target_->start(); });
      return;
    case 7:
      target_->close_portal(portal);
      later(length, [this, portal] { target_->open_portal(portal); });
      return;
    case 8:
      be_busy(1, 60);
      return;
    case 9: {
      constexpr std::uint16_t kCodes[] = {0x2900, 0x2903, 0x2a01, 0x2a06,
                                          0x2a09, 0x2800, 0x3f03, 0x3f0e};
      target_->add_unit_attention(kCodes[random_.below(std::size(kCodes))]);
      return;
    }
    case 10:
      for (std::size_t each = 0; each < portals_; ++each) {
        refuse(address(each), length + random_duration(milliseconds(500)));
      }
      return;
    case 11:
      target_->set_hung(true);
      later(shortened(length, kLongestHang), [this] { target_->set_hung(false); });
      return;
    case 12:
      be_not_ready(portal);
      return;
    case 13:
    case 14:
      stick_commands(portal);
      return;
    case 15:
      spoil_functions(length);
      return;
    case 16:  // longer than path_timeout: when it arrives, the path has been given up
      hold_back(where, SimDirection::to_server, milliseconds(random_.between(1900, 6000)));
      return;
    case 17:
    case 18:  // answers arrive late, perhaps when another path has given them
      hold_back(where, SimDirection::to_client, milliseconds(random_.between(150, 2500)));
      return;
    case 19:
      cut_connections(where);
      return;
    case 20:
      slow_down(where, length);
      return;
    case 21:
      fail_over_controller(std::min<Duration>(length, seconds(1)));
      return;
    case 22:
      swap_luns(std::min<Duration>(length, seconds(1)));
      return;
    case 23:  // a storm
      be_busy(100, 300);
      return;
    case 24:
    case 25:
      remove_path(random_.below(disks_.size()), portal, length);
      return;
    case 26:
      change_policies();
      return;
    case 27:
      suspend(random_.below(disks_.size()), std::min<Duration>(length, seconds(2)));
      return;
    case 28:
      lose_disk(random_.below(disks_.size()), portal, length);
      return;
    case 29:
    case 30:
      change_access(std::min<Duration>(length, seconds(3)));
      return;
    default:
      lose_writes(portal, length);
      return;
  }
}

// ---- connections

void Simulation::refuse(const SocketAddress& where, Duration length) {
  reactor_.network().set_refusing(where, true);
  reactor_.network().reset_connections(where);
  later(length, [this, where] { reactor_.network().set_refusing(where, false); });
}

void Simulation::drop_one_direction(const SocketAddress& where, Duration length) {
  const SimDirection direction =
      random_.one_in(2) ? SimDirection::to_server : SimDirection::to_client;
  reactor_.network().set_dropping(where, direction, true);
  later(length,
        [this, where, direction] { reactor_.network().set_dropping(where, direction, false); });
}

// Stalled in the network and delivered later, even what was sent before a reset.
void Simulation::hold_back(const SocketAddress& where, SimDirection direction, Duration length) {
  reactor_.network().set_held(where, direction, true);
  later(shortened(length, kLongestHold),
        [this, where, direction] { reactor_.network().set_held(where, direction, false); });
}

// Wherever in a PDU it is.
void Simulation::cut_connections(const SocketAddress& where) {
  reactor_.network().set_reset_policy(
      where, random_.one_in(2) ? SimResetPolicy::nothing : SimResetPolicy::everything);
  reactor_.network().reset_connections(where);
  later(milliseconds(1),
        [this, where] { reactor_.network().set_reset_policy(where, SimResetPolicy::random); });
}

// One path becomes slow, so that what the paths carry arrives in another order than it was sent.
void Simulation::slow_down(const SocketAddress& where, Duration length) {
  reactor_.network().set_latency(where, milliseconds(random_.between(5, 150)),
                                 milliseconds(random_.below(100)));
  later(length, [this, where] {
    reactor_.network().set_latency(where, microseconds(200), microseconds(100));
  });
}

// A path goes for long, and what it carried arrives only when it has been given up (path_timeout).
void Simulation::lose_path_with_bytes_under_way(std::size_t portal) {
  const SocketAddress where = address(portal);
  reactor_.network().set_refusing(where, true);
  reactor_.network().set_reset_policy(where, SimResetPolicy::everything);
  hold_back(where, SimDirection::to_server, milliseconds(random_.between(2100, 2400)));
  later(milliseconds(random_.between(4000, 9000)), [this, where] {
    reactor_.network().set_refusing(where, false);
    reactor_.network().set_reset_policy(where, SimResetPolicy::random);
  });
}

// Writes stay in the target, their connection goes, and later they strike.
void Simulation::lose_writes(std::size_t portal, Duration length) {
  const SocketAddress where = address(portal);
  SimFault hold;
  hold.matches = [portal](const SimCommand& command) {
    return command.portal == portal && is_write(command);
  };
  hold.count = static_cast<std::uint32_t>(random_.between(1, 6));
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  const Duration until_reset = random_duration(milliseconds(60));
  if (random_.one_in(4)) {  // before or after the loss
    later(random_duration(milliseconds(120)),
          [this, disk = random_.below(disks_.size()), portal, length] {
            if (!faults_ended_) {
              remove_path(disk, portal, length);
            }
          });
  }
  later(until_reset, [this, where, refused = contended_ || random_.one_in(2), length] {
    if (refused) {
      reactor_.network().set_refusing(where, true);
      later(length, [this, where] { reactor_.network().set_refusing(where, false); });
    }
    reactor_.network().reset_connections(where);
  });
  later(until_reset + random_duration(length + milliseconds(100)),
        [this] { target_->release_held(); });
}

// ---- commands

void Simulation::be_busy(std::uint32_t at_least, std::uint32_t at_most) {
  SimFault busy;
  busy.count = static_cast<std::uint32_t>(random_.between(at_least, at_most));
  busy.status = random_.one_in(2) ? ScsiStatus::busy : ScsiStatus::task_set_full;
  target_->inject(busy);
}

void Simulation::be_not_ready(std::size_t portal) {
  SimFault standby;
  standby.matches = [portal](const SimCommand& command) { return command.portal == portal; };
  standby.count = static_cast<std::uint32_t>(random_.between(1, 8));
  standby.status = ScsiStatus::check_condition;
  constexpr std::uint16_t kCodes[] = {0x0401, 0x040a, 0x040b, 0x040c};
  standby.sense = make_sense(SenseKey::not_ready, kCodes[random_.below(std::size(kCodes))]);
  target_->inject(standby);
}

// Commands that a living target never answers, whether it executes them or not; some it would
// execute much later, had they not been aborted.
void Simulation::stick_commands(std::size_t portal) {
  SimFault stuck;
  stuck.matches = [portal](const SimCommand& command) { return command.portal == portal; };
  stuck.count = static_cast<std::uint32_t>(random_.between(1, 8));
  stuck.execute = random_.one_in(2);
  if (random_.one_in(2)) {
    stuck.hold = true;
    stuck.execute = true;
    later(random_duration(seconds(5)), [this] { target_->release_held(); });
  } else {
    stuck.answer = false;
  }
  target_->inject(stuck);
}

// For a while, aborts and resets are not answered, or refused.
void Simulation::spoil_functions(Duration length) {
  const TaskFunction which =
      random_.one_in(3) ? TaskFunction::logical_unit_reset : TaskFunction::abort_task;
  SimFunctionFault fault;
  fault.answer = random_.one_in(2);
  fault.execute = false;
  constexpr std::uint8_t kResponses[] = {1, 5, 255};
  fault.response = kResponses[random_.below(std::size(kResponses))];
  target_->fault_functions(which, fault);
  later(length, [this, which] { target_->fault_functions(which, std::nullopt); });
}

// ---- the end

void Simulation::end_faults() {
  faults_ended_ = true;
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    reactor_.network().set_dropping(address(portal), false);
    reactor_.network().set_held(address(portal), SimDirection::to_server, false);
    reactor_.network().set_held(address(portal), SimDirection::to_client, false);
    reactor_.network().set_refusing(address(portal), false);
  }
  target_->set_hung(false);
  map_luns(false);
  for (std::uint16_t tag = 1; tpgs_ != 0 && tag <= 2; ++tag) {
    set_access(tag, AccessState::active_optimized, true);
  }
  target_->start();
  target_->clear_faults();
  target_->fault_functions(TaskFunction::abort_task, std::nullopt);
  target_->fault_functions(TaskFunction::logical_unit_reset, std::nullopt);
  target_->release_held();
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    for (std::size_t disk = 0; disk < disks_.size(); ++disk) {
      add_path_again(disk, portal);
    }
  }
}

}  // namespace iscsi_blkback
