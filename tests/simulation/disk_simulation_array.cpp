#include <algorithm>

#include "tests/simulation/disk_simulation_impl.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Half of the portals go with their controller; the other one answers not ready while it takes
// over, and then says that something has happened.
void Simulation::fail_over_controller(Duration length) {
  const std::size_t half = random_.below(2);
  for (std::size_t portal = half; portal < portals_; portal += 2) {
    target_->close_portal(portal);
    later(length + random_duration(milliseconds(200)),
          [this, portal] { target_->open_portal(portal); });
  }
  SimFault taking_over;
  taking_over.count = static_cast<std::uint32_t>(random_.between(1, 30));
  taking_over.status = ScsiStatus::check_condition;
  taking_over.sense = make_sense(SenseKey::not_ready, random_.one_in(2) ? 0x0401 : 0x040a);
  target_->inject(taking_over);
  later(random_duration(length + microseconds(1)),
        [this, code = random_.one_in(2) ? std::uint16_t{0x2a06} : std::uint16_t{0x2900}] {
          target_->add_unit_attention(code);
        });
}

void Simulation::set_access(std::uint16_t tag, AccessState state, bool tells) {
  ++result_.access_changes;
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    for (TargetPortGroup& group : disk->lun()->options.port_groups) {
      if (group.tag == tag) {
        group.state = state;
      }
    }
  }
  if (tells) {
    target_->add_unit_attention(0x2a06);
  }
}

// A target port group leaves active/optimized by way of transitioning, and comes back so; perhaps
// the other one takes over. The array does it by itself, and what it is told (STPG) takes a while.
void Simulation::change_access(Duration length) {
  if (tpgs_ == 0) {
    lose_writes(random_.below(portals_), length);
    return;
  }
  const auto tag =
      static_cast<std::uint16_t>(random_.between(1, std::min<std::size_t>(portals_, 2)));
  constexpr AccessState kStates[] = {AccessState::standby, AccessState::unavailable,
                                     AccessState::active_non_optimized};
  const AccessState next = kStates[random_.below(std::size(kStates))];
  const Duration first = random_duration(milliseconds(700));
  const Duration back = first + length;
  const Duration last = back + random_duration(milliseconds(300));
  const auto at = [this](Duration delay, std::uint16_t group, AccessState state) {
    later(delay, [this, group, state, tells = !random_.one_in(3)] {
      if (!faults_ended_) {
        set_access(group, state, tells);
      }
    });
  };
  set_access(tag, AccessState::transitioning, !random_.one_in(3));
  at(first, tag, next);
  if (portals_ > 1 && random_.one_in(2)) {
    at(random_duration(first + microseconds(1)), static_cast<std::uint16_t>(3 - tag),
       AccessState::active_optimized);
  }
  at(back, tag, AccessState::transitioning);
  at(last, tag, AccessState::active_optimized);
  SimFault slow;
  slow.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kMaintenanceOut;
  };
  slow.execute = true;
  slow.extra_delay = random_duration(milliseconds(500));
  if (random_.one_in(3)) {
    slow.execute = false;
    slow.status = ScsiStatus::check_condition;
    slow.sense = make_sense(SenseKey::not_ready, 0x040a);
  }
  target_->inject(slow);
}

// After a restart, other LUNs are behind the numbers, for a while.
void Simulation::swap_luns(Duration length) {
  const bool all_ready = std::all_of(
      disks_.begin(), disks_.end(),
      [](const std::unique_ptr<SimulatedDisk>& disk) { return disk->device().ready(); });
  if (swapped_ || !all_ready) {
    return;
  }
  map_luns(true);
  later(length, [this] { map_luns(false); });
}

void Simulation::map_luns(bool foreign) {
  if (swapped_ == foreign) {
    return;
  }
  swapped_ = foreign;
  target_->stop();
  for (std::size_t disk = 0; disk < disks_.size(); ++disk) {
    const auto number = static_cast<std::uint16_t>(disk);
    target_->remove_lun(number);
    target_->add_lun(number, foreign ? foreign_lun_ : disks_[disk]->lun());
  }
  target_->start();
}

}  // namespace iscsi_blkback
