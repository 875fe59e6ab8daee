#include <fmt/format.h>

#include "tests/simulation/disk_simulation_impl.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// In runs with fences of the logical unit. kLongestHold and kLongestHang, and what a slow path adds
// to them, are shorter (disk_simulation_faults.cpp).
constexpr milliseconds kSettleTime{3500};

}  // namespace

SocketAddress Simulation::address(std::size_t portal) const {
  return SocketAddress::parse(fmt::format("10.0.0.{}", portal + 1), 3260).value();
}

void Simulation::build() {
  const SimTargetOptions target = choose_target();
  target_ = std::make_unique<SimTarget>(reactor_, target);
  foreign_lun_ = std::make_shared<SimLun>(
      SimLunOptions{.block_count = kSimulatedSectors, .serial = "FOREIGN", .naa_extension = 99});
  const MultipathOptions policies = choose_policies();
  build_disks(policies);
  build_sessions(target.name);
  result_.plan = described(target, policies);
}

SimTargetOptions Simulation::choose_target() {
  contended_ = random_.one_in(3);
  portals_ = random_.between(contended_ ? 2 : 1, 4);
  std::uint64_t grouping = random_.below(3);  // one portal group, each portal its own, pairs
  if (only_lun_fences()) {
    contended_ = true;
    portals_ = 4;
    grouping = 1;  // nobody else can fence a lost session
  }
  SimTargetOptions options;
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    const std::uint64_t tag = grouping == 0 ? 1 : grouping == 1 ? portal + 1 : portal / 2 + 1;
    options.portals.push_back({address(portal), static_cast<std::uint16_t>(tag)});
    choose_network(address(portal));
  }
  options.initial_r2t = random_.one_in(3);
  options.immediate_data = !random_.one_in(3);
  options.first_burst_length = random_.one_in(2) ? 65536 : 2048;
  options.max_recv_data_segment_length = random_.one_in(2) ? 65536 : 1024;
  options.window = static_cast<std::uint32_t>(random_.between(2, 64));
  options.command_delay = microseconds(random_.below(2000));
  options.command_jitter = microseconds(random_.below(5000));
  options.linger_delay = random_.one_in(2) ? random_duration(seconds(3)) : Duration{};
  options.status_with_data = random_.one_in(2);
  return options;
}

void Simulation::choose_network(const SocketAddress& where) {
  SimNetwork& network = reactor_.network();
  network.set_latency(where, microseconds(random_.between(20, 2000)),
                      microseconds(random_.below(500)));
  network.set_reset_policy(where, SimResetPolicy::random);
  if (random_.one_in(3)) {  // PDUs arrive in pieces
    network.set_split(where, SimDirection::to_client, random_.between(1000, 20000));
    network.set_split(where, SimDirection::to_server, random_.between(1000, 20000));
  }
}

MultipathOptions Simulation::choose_policies() {
  MultipathOptions options;
  // It is one target, as trials find out, too.
  const bool trial = options_.seed % 3 == 0 && !only_lun_fences();
  options.portal_group_fences = trial ? PortalGroupFences::trial : PortalGroupFences::yes;
  if (options_.canary != Canary::no_marks) {
    options.barrier_directory = marks_.path();
  }
  options.path_grouping_policy =
      random_.one_in(3) ? PathGroupingPolicy::failover : PathGroupingPolicy::multibus;
  options.path_selector = static_cast<PathSelectorKind>(random_.below(4));
  options.rr_min_io = static_cast<std::uint32_t>(random_.between(1, 10));
  options.max_requests = static_cast<std::uint32_t>(random_.between(4, 64));
  options.polling_interval = seconds(2);
  if (random_.one_in(4)) {
    options.no_path_retry = milliseconds(random_.below(3000));
  }
  if (only_lun_fences() || random_.one_in(4)) {
    lun_fences_ = random_.one_in(2) ? LunFences::reset : LunFences::preempt;
    options.fence_settle_time = only_lun_fences() ? milliseconds(0) : kSettleTime;
    if (lun_fences_ == LunFences::preempt) {
      options.reservation_key = 0x5a0000;
    }
  }
  if (random_.one_in(3)) {
    tpgs_ = static_cast<std::uint8_t>(random_.between(1, 3));  // implicit, explicit, both
    options.path_grouping_policy.reset();
    if (random_.one_in(2)) {
      options.path_grouping_policy =
          random_.one_in(2) ? PathGroupingPolicy::group_by_prio : PathGroupingPolicy::group_by_tpg;
    }
    if (random_.one_in(3)) {
      options.failback = Failback{};
    }
  }
  return options;
}

void Simulation::build_disks(MultipathOptions options) {
  const std::uint64_t disks = random_.between(1, 2);
  // The ring copies, so that a canary could only be seen at the device.
  through_ring_ = random_.one_in(3) && options_.canary == Canary::none;
  for (std::uint64_t disk = 0; disk < disks; ++disk) {
    options.alias = fmt::format("disk{}", disk);
    // With the default fence_settle_time, resets are for stuck commands only: nothing waits so
    // long.
    options.exclusive_luns = lun_fences_ == LunFences::reset || random_.one_in(4);
    disks_.push_back(std::make_unique<SimulatedDisk>(
        *this, random_.next(), static_cast<std::uint16_t>(disk), options, through_ring_));
    target_->add_lun(static_cast<std::uint16_t>(disk), disks_.back()->lun());
    build_port_groups(*disks_.back()->lun());
    if (options_.canary == Canary::no_hold) {
      MultipathDeviceCanary::disable_hold(disks_.back()->device());
    } else if (options_.canary == Canary::no_rule_of_buffers) {
      MultipathDeviceCanary::disable_rule_of_buffers(disks_.back()->device());
    }
  }
}

// Two target port groups, of every other portal, whatever portal groups these are in.
void Simulation::build_port_groups(SimLun& lun) {
  if (tpgs_ == 0) {
    return;
  }
  lun.options.tpgs = tpgs_;
  constexpr AccessState kStates[] = {AccessState::active_optimized,
                                     AccessState::active_non_optimized, AccessState::standby};
  for (std::size_t group = 0; group < std::min<std::size_t>(portals_, 2); ++group) {
    TargetPortGroup& made = lun.options.port_groups.emplace_back();
    made.tag = static_cast<std::uint16_t>(group + 1);
    made.state = group == 0 ? AccessState::active_optimized : kStates[random_.below(3)];
    for (std::size_t portal = group; portal < portals_; portal += 2) {
      made.ports.push_back(static_cast<std::uint16_t>(portal + 1));
    }
  }
}

void Simulation::build_sessions(const std::string& target_name) {
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    SessionOptions session;
    session.initiator_name = "iqn.2026-01.test:guest";
    session.target_name = target_name;
    session.portal = address(portal);
    session.portal_name = session.portal.to_string();
    session.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(portal + 1)};
    session.max_commands = static_cast<std::uint16_t>(random_.between(4, 64));
    if (!random_.one_in(3)) {
      session.command_timeout = milliseconds(random_.between(200, 1500));
      session.abort_timeout = milliseconds(random_.between(100, 1000));
      session.lu_reset_timeout = milliseconds(random_.between(100, 1000));
    }
    session.max_outstanding_r2t = static_cast<std::uint16_t>(random_.between(1, 4));
    sessions_.push_back(std::make_unique<Session>(reactor_, session));
    for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
      disk->add_path(*sessions_.back());
    }
    sessions_.back()->start();
    uses_.push_back({.removed = std::vector<bool>(disks_.size()), .users = disks_.size()});
  }
}

std::string Simulation::described(const SimTargetOptions& target,
                                  const MultipathOptions& policies) const {
  std::string groups;
  for (const SimPortal& portal : target.portals) {
    groups += fmt::format(" {}", portal.group_tag);
  }
  return fmt::format(
      "{}{} disks{}, portal groups{}, {}, window {}, R2T {}, immediate {}, linger {} ms, "
      "no_path_retry {}, TPGS {}, {}",
      contended_ ? "contended, " : "", disks_.size(), through_ring_ ? " through rings" : "", groups,
      policies.path_grouping_policy ? to_string(*policies.path_grouping_policy) : "detected",
      target.window, target.initial_r2t, target.immediate_data,
      std::chrono::duration_cast<milliseconds>(target.linger_delay).count(),
      policies.no_path_retry ? fmt::format("{} ms", (**policies.no_path_retry).count()) : "queue",
      tpgs_,
      lun_fences_ == LunFences::none    ? "no fence of the LUN"
      : lun_fences_ == LunFences::reset ? "LU reset"
                                        : "PREEMPT AND ABORT");
}

}  // namespace iscsi_blkback
