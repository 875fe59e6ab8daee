#include "tests/simulation/disk_simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "tests/simulation/simulated_disk.h"
#include "tests/support/sim_random.h"
#include "tests/support/sim_stream.h"

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kFaultTime = seconds(12);
// After the last fault: the longest back-off of a login, a check of a failed path, and the hold of
// a write until the target has given up its connection.
constexpr Duration kRecoveryTime = seconds(90);
constexpr std::size_t kMaxFailures = 5;
// In runs with fences of the logical unit: how long something may be held back in the network, and
// after that in a hung target; a slow path adds to them.
constexpr Duration kLongestHold = milliseconds(2400);
constexpr Duration kLongestHang = milliseconds(400);
constexpr milliseconds kSettleTime{3500};

class Simulation final : public SimulatedDisk::World {
 public:
  explicit Simulation(const SimulationOptions& options)
      : options_(options), random_(options.seed * 0x9e3779b9 + 17), reactor_(options.seed) {}

  SimulationResult run();

  [[nodiscard]] SimReactor& reactor() override { return reactor_; }
  void fail(std::string what) override {
    if (result_.failures.size() < kMaxFailures) {
      const auto at = std::chrono::duration_cast<microseconds>(reactor_.now() - began_);
      result_.failures.push_back(fmt::format("at {} us: {}", at.count(), std::move(what)));
    }
  }
  [[nodiscard]] bool failed() const { return !result_.failures.empty(); }
  // All requests go to the same few sectors, and writes are lost more often than anything else.
  [[nodiscard]] bool contended() const override { return contended_; }
  [[nodiscard]] SectorOracle::Version next_version() override { return ++last_version_; }
  void count_answer(BlockOperation operation, IoStatus status) override;

 private:
  [[nodiscard]] SocketAddress address(std::size_t portal) const {
    return SocketAddress::parse(fmt::format("10.0.0.{}", portal + 1), 3260).value();
  }
  void build();
  void plan_faults();
  void inject_fault();
  void lose_writes(std::size_t portal, Duration length);
  void hold_back(const SocketAddress& where, SimDirection direction, Duration length);
  void slow_down(const SocketAddress& where, Duration length);
  void fail_over_controller(Duration length);
  void build_port_groups(SimLun& lun);
  void set_access(std::uint16_t tag, AccessState state);
  void change_access(Duration length);
  void lose_path_with_bytes_under_way(std::size_t portal);
  void swap_luns(Duration length);
  void map_luns(bool foreign);
  void stick_commands(std::size_t portal);
  void spoil_functions(Duration length);
  void path_removed(std::uint16_t lun_number, Session& session) override;
  void remove_path(std::size_t disk, std::size_t portal, Duration length);
  void add_path_again(std::size_t disk, std::size_t portal);
  void change_policies();
  void end_faults();
  void settle();
  void finish();
  [[nodiscard]] Duration random_duration(Duration at_most) {
    return Duration{
        static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(at_most.count())))};
  }
  // Mostly short.
  [[nodiscard]] Duration outage() {
    if (lun_fences_ != LunFences::none && random_.one_in(2)) {
      return random_duration(seconds(8));
    }
    return random_.one_in(4) ? random_duration(seconds(6)) : random_duration(milliseconds(400));
  }
  [[nodiscard]] Duration shortened(Duration delay, Duration at_most) const {
    return lun_fences_ == LunFences::none ? delay : std::min(delay, at_most);
  }
  void later(Duration delay, std::function<void()> what) {
    reactor_.schedule(delay, std::move(what));
  }

  const SimulationOptions options_;
  SimRandom random_;
  SimReactor reactor_;
  TimePoint began_{};
  std::size_t portals_ = 0;
  bool contended_ = false;
  std::unique_ptr<SimTarget> target_;
  std::shared_ptr<SimLun> foreign_lun_;
  bool swapped_ = false;
  std::uint8_t tpgs_ = 0;  // 0: no ALUA
  // Lost writes are fenced by commands of the logical unit: paths stay away for long, and what is
  // held back or hung is so for less than fence_settle_time.
  enum class LunFences : std::uint8_t { none, reset, preempt } lun_fences_ = LunFences::none;
  std::vector<std::unique_ptr<Session>> sessions_;
  struct SessionUse {
    std::vector<bool> removed;  // by disk: it has no path here
    std::size_t users = 0;
    bool stopping = false;
    bool stopped = false;
  };
  std::vector<SessionUse> uses_;  // of sessions_; never grows once paths come and go
  std::vector<std::unique_ptr<SimulatedDisk>> disks_;
  bool faults_ended_ = false;
  bool closing_ = false;
  SectorOracle::Version last_version_ = 0;
  SimulationResult result_;
};

void Simulation::count_answer(BlockOperation operation, IoStatus status) {
  ++result_.requests;
  const std::uint64_t parts[] = {
      static_cast<std::uint64_t>(reactor_.now().time_since_epoch().count()),
      static_cast<std::uint64_t>(operation), static_cast<std::uint64_t>(status)};
  for (const std::uint64_t part : parts) {
    result_.fingerprint = (result_.fingerprint ^ part) * 0x100000001b3;
  }
}

void Simulation::build() {
  contended_ = random_.one_in(3);
  portals_ = random_.between(contended_ ? 2 : 1, 4);
  SimTargetOptions target_options;
  std::uint64_t grouping = random_.below(3);
  if (options_.canary == Canary::no_settling) {  // nobody else can fence a lost session
    contended_ = true;
    portals_ = 4;
    grouping = 1;
  }
  std::string groups;
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    const std::uint64_t tag = grouping == 0 ? 1 : grouping == 1 ? portal + 1 : portal / 2 + 1;
    groups += fmt::format(" {}", tag);
    target_options.portals.push_back({address(portal), static_cast<std::uint16_t>(tag)});
    reactor_.network().set_latency(address(portal), microseconds(random_.between(20, 2000)),
                                   microseconds(random_.below(500)));
    reactor_.network().set_reset_policy(address(portal), SimResetPolicy::random);
    if (random_.one_in(3)) {  // PDUs arrive in pieces
      reactor_.network().set_split(address(portal), SimDirection::to_client,
                                   random_.between(1000, 20000));
      reactor_.network().set_split(address(portal), SimDirection::to_server,
                                   random_.between(1000, 20000));
    }
  }
  target_options.initial_r2t = random_.one_in(3);
  target_options.immediate_data = !random_.one_in(3);
  target_options.first_burst_length = random_.one_in(2) ? 65536 : 2048;
  target_options.max_recv_data_segment_length = random_.one_in(2) ? 65536 : 1024;
  target_options.window = static_cast<std::uint32_t>(random_.between(2, 64));
  target_options.command_delay = microseconds(random_.below(2000));
  target_options.command_jitter = microseconds(random_.below(5000));
  target_options.linger_delay = random_.one_in(2) ? random_duration(seconds(3)) : Duration{};
  target_options.status_with_data = random_.one_in(2);
  target_ = std::make_unique<SimTarget>(reactor_, target_options);
  foreign_lun_ = std::make_shared<SimLun>(
      SimLunOptions{.block_count = kSimulatedSectors, .serial = "FOREIGN", .naa_extension = 99});

  MultipathOptions options;
  options.path_grouping_policy =
      random_.one_in(3) ? PathGroupingPolicy::failover : PathGroupingPolicy::multibus;
  options.path_selector = static_cast<PathSelectorKind>(random_.below(4));
  options.rr_min_io = static_cast<std::uint32_t>(random_.between(1, 10));
  options.max_requests = static_cast<std::uint32_t>(random_.between(4, 64));
  options.polling_interval = seconds(2);
  if (random_.one_in(4)) {
    options.no_path_retry = milliseconds(random_.below(3000));
  }
  if (options_.canary == Canary::no_settling || random_.one_in(4)) {
    lun_fences_ = random_.one_in(2) ? LunFences::reset : LunFences::preempt;
    options.fence_settle_time =
        options_.canary == Canary::no_settling ? milliseconds(0) : kSettleTime;
    if (lun_fences_ == LunFences::preempt) {
      options.reservation_key = 0x5a00000000000000;
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
  const std::uint64_t disks = random_.between(1, 2);
  // The ring copies, so that a canary could only be seen at the device.
  const bool through_ring = random_.one_in(3) && options_.canary == Canary::none;
  for (std::uint64_t disk = 0; disk < disks; ++disk) {
    options.alias = fmt::format("disk{}", disk);
    disks_.push_back(std::make_unique<SimulatedDisk>(
        *this, random_.next(), static_cast<std::uint16_t>(disk), options, through_ring));
    target_->add_lun(static_cast<std::uint16_t>(disk), disks_.back()->lun());
    build_port_groups(*disks_.back()->lun());
    if (options_.canary == Canary::no_hold) {
      MultipathDeviceCanary::disable_hold(disks_.back()->device());
    } else if (options_.canary == Canary::no_rule_of_buffers) {
      MultipathDeviceCanary::disable_rule_of_buffers(disks_.back()->device());
    }
  }
  for (std::size_t portal = 0; portal < portals_; ++portal) {
    SessionOptions session;
    session.initiator_name = "iqn.2026-01.test:guest";
    session.target_name = target_options.name;
    session.portal = address(portal);
    session.portal_name = session.portal.to_string();
    session.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(portal + 1)};
    session.max_commands = static_cast<std::uint16_t>(random_.between(4, 64));
    if (!random_.one_in(3)) {
      session.command_timeout = milliseconds(random_.between(200, 1500));
      session.abort_timeout = milliseconds(random_.between(100, 1000));
      session.lu_reset_timeout = milliseconds(random_.between(100, 1000));
      session.exclusive_luns = random_.one_in(4);
    }
    // With the default fence_settle_time, resets are for stuck commands only: nothing waits so
    // long.
    session.exclusive_luns = lun_fences_ == LunFences::reset || session.exclusive_luns;
    session.max_outstanding_r2t = static_cast<std::uint16_t>(random_.between(1, 4));
    sessions_.push_back(std::make_unique<Session>(reactor_, session));
    for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
      disk->add_path(*sessions_.back());
    }
    sessions_.back()->start();
    uses_.push_back({.removed = std::vector<bool>(disks_.size()), .users = disks_.size()});
  }
  result_.plan = fmt::format(
      "{}{} disks{}, portal groups{}, {}, window {}, R2T {}, immediate {}, linger {} ms, "
      "no_path_retry {}, TPGS {}, {}",
      contended_ ? "contended, " : "", disks, through_ring ? " through rings" : "", groups,
      options.path_grouping_policy ? to_string(*options.path_grouping_policy) : "detected",
      target_options.window, target_options.initial_r2t, target_options.immediate_data,
      std::chrono::duration_cast<milliseconds>(target_options.linger_delay).count(),
      options.no_path_retry ? fmt::format("{} ms", (**options.no_path_retry).count()) : "queue",
      tpgs_,
      lun_fences_ == LunFences::none    ? "no fence of the LUN"
      : lun_fences_ == LunFences::reset ? "LU reset"
                                        : "PREEMPT AND ABORT");
}

void Simulation::plan_faults() {
  Duration at = milliseconds(50);
  const bool rare = options_.canary == Canary::no_settling;  // each takes a path away for long
  const Duration mean = milliseconds(rare ? 1500 : random_.between(50, 800));
  while (at < kFaultTime) {
    later(at, [this] {
      if (!faults_ended_) {
        ++result_.faults;
        inject_fault();
      }
    });
    at += random_duration(mean * 2) + microseconds(1);
  }
}

void Simulation::inject_fault() {
  SimNetwork& network = reactor_.network();
  const std::size_t portal = random_.below(portals_);
  const SocketAddress where = address(portal);
  const Duration length = outage();
  const bool mostly = options_.canary == Canary::no_settling;
  if (lun_fences_ != LunFences::none && (mostly ? !random_.one_in(4) : random_.one_in(3))) {
    lose_path_with_bytes_under_way(portal);
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
      network.set_refusing(where, true);
      network.reset_connections(where);
      later(length, [this, where] { reactor_.network().set_refusing(where, false); });
      return;
    case 3:
      network.set_dropping(where, true);
      later(length, [this, where] { reactor_.network().set_dropping(where, false); });
      return;
    case 4: {
      const SimDirection direction =
          random_.one_in(2) ? SimDirection::to_server : SimDirection::to_client;
      network.set_dropping(where, direction, true);
      later(length,
            [this, where, direction] { reactor_.network().set_dropping(where, direction, false); });
      return;
    }
    case 5:
      hold_back(where, SimDirection::to_server, length);
      if (random_.one_in(2)) {
        later(random_duration(length + microseconds(1)),
              [this, where] { reactor_.network().reset_connections(where); });
      }
      return;
    case 16:  // longer than path_timeout: when it arrives, the path has been given up
      hold_back(where, SimDirection::to_server, milliseconds(random_.between(1900, 6000)));
      return;
    case 17:
    case 18:  // answers arrive late, perhaps when another path has given them
      hold_back(where, SimDirection::to_client, milliseconds(random_.between(150, 2500)));
      return;
    case 19:  // cut, wherever in a PDU it is
      network.set_reset_policy(
          where, random_.one_in(2) ? SimResetPolicy::nothing : SimResetPolicy::everything);
      network.reset_connections(where);
      later(milliseconds(1),
            [this, where] { reactor_.network().set_reset_policy(where, SimResetPolicy::random); });
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
    case 29:
    case 30:
      change_access(std::min<Duration>(length, seconds(3)));
      return;
    case 23: {  // a storm
      SimFault busy;
      busy.count = static_cast<std::uint32_t>(random_.between(100, 300));
      busy.status = random_.one_in(2) ? ScsiStatus::busy : ScsiStatus::task_set_full;
      target_->inject(busy);
      return;
    }
    case 6:  // the process of the target dies and comes back
      target_->stop();
      later(length, [this] { target_->start(); });
      return;
    case 7:
      target_->close_portal(portal);
      later(length, [this, portal] { target_->open_portal(portal); });
      return;
    case 8: {
      SimFault busy;
      busy.count = static_cast<std::uint32_t>(random_.between(1, 60));
      busy.status = random_.one_in(2) ? ScsiStatus::busy : ScsiStatus::task_set_full;
      target_->inject(busy);
      return;
    }
    case 9: {
      constexpr std::uint16_t kCodes[] = {0x2900, 0x2903, 0x2a01, 0x2a06,
                                          0x2a09, 0x2800, 0x3f03, 0x3f0e};
      target_->add_unit_attention(kCodes[random_.below(std::size(kCodes))]);
      return;
    }
    case 10:
      for (std::size_t each = 0; each < portals_; ++each) {
        network.set_refusing(address(each), true);
        network.reset_connections(address(each));
        later(length + random_duration(milliseconds(500)),
              [this, each] { reactor_.network().set_refusing(address(each), false); });
      }
      return;
    case 11:
      target_->set_hung(true);
      later(shortened(length, kLongestHang), [this] { target_->set_hung(false); });
      return;
    case 12: {
      SimFault standby;
      standby.matches = [portal](const SimCommand& command) { return command.portal == portal; };
      standby.count = static_cast<std::uint32_t>(random_.between(1, 8));
      standby.status = ScsiStatus::check_condition;
      constexpr std::uint16_t kCodes[] = {0x0401, 0x040a, 0x040b, 0x040c};
      standby.sense = make_sense(SenseKey::not_ready, kCodes[random_.below(std::size(kCodes))]);
      target_->inject(standby);
      return;
    }
    case 24:
    case 25:
      remove_path(random_.below(disks_.size()), portal, length);
      return;
    case 26:
      change_policies();
      return;
    case 13:
    case 14:
      stick_commands(portal);
      return;
    case 15:
      spoil_functions(length);
      return;
    default:
      lose_writes(portal, length);
      return;
  }
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

// Stalled in the network and delivered later, even what was sent before a reset.
void Simulation::hold_back(const SocketAddress& where, SimDirection direction, Duration length) {
  reactor_.network().set_held(where, direction, true);
  later(shortened(length, kLongestHold),
        [this, where, direction] { reactor_.network().set_held(where, direction, false); });
}

// One path becomes slow, so that what the paths carry arrives in another order than it was sent.
void Simulation::slow_down(const SocketAddress& where, Duration length) {
  reactor_.network().set_latency(where, milliseconds(random_.between(5, 150)),
                                 milliseconds(random_.below(100)));
  later(length, [this, where] {
    reactor_.network().set_latency(where, microseconds(200), microseconds(100));
  });
}

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
        [this] { target_->add_unit_attention(random_.one_in(2) ? 0x2a06 : 0x2900); });
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

void Simulation::set_access(std::uint16_t tag, AccessState state) {
  ++result_.access_changes;
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    for (TargetPortGroup& group : disk->lun()->options.port_groups) {
      if (group.tag == tag) {
        group.state = state;
      }
    }
  }
  if (!random_.one_in(3)) {  // else polling finds it
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
    later(delay, [this, group, state] {
      if (!faults_ended_) {
        set_access(group, state);
      }
    });
  };
  set_access(tag, AccessState::transitioning);
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

// For a while, the disk does without the path; a session without any path is stopped.
void Simulation::remove_path(std::size_t disk, std::size_t portal, Duration length) {
  if (!uses_[portal].removed[disk] && disks_[disk]->remove_path(*sessions_[portal])) {
    ++result_.removed_paths;
    uses_[portal].removed[disk] = true;
    later(length, [this, disk, portal] { add_path_again(disk, portal); });
  }
}

void Simulation::path_removed(std::uint16_t /*lun_number*/, Session& session) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const auto& one) { return one.get() == &session; });
  SessionUse& use = uses_[static_cast<std::size_t>(found - sessions_.begin())];
  if (--use.users == 0) {
    use.stopping = true;
    session.stop(
        [](void* stopped) noexcept {
          static_cast<SessionUse*>(stopped)->stopping = false;
          static_cast<SessionUse*>(stopped)->stopped = true;
        },
        &use);
  }
}

void Simulation::add_path_again(std::size_t disk, std::size_t portal) {
  SessionUse& use = uses_[portal];
  if (closing_ || !use.removed[disk]) {
    return;
  }
  const bool leaving = use.users > static_cast<std::size_t>(
                                       std::count(use.removed.begin(), use.removed.end(), false));
  if (leaving || use.stopping) {  // its last requests, or its fence
    later(milliseconds(20), [this, disk, portal] { add_path_again(disk, portal); });
    return;
  }
  if (std::exchange(use.stopped, false)) {
    sessions_[portal]->start();
  }
  ++use.users;
  use.removed[disk] = false;
  disks_[disk]->add_path(*sessions_[portal]);
}

void Simulation::change_policies() {
  PathPolicySettings changes;
  changes.path_selector = static_cast<PathSelectorKind>(random_.below(4));
  changes.path_grouping_policy = static_cast<PathGroupingPolicy>(random_.below(5));
  disks_[random_.below(disks_.size())]->device().change_policies(changes);
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
  later(until_reset, [this, where, refuse = contended_ || random_.one_in(2), length] {
    if (refuse) {
      reactor_.network().set_refusing(where, true);
      later(length, [this, where] { reactor_.network().set_refusing(where, false); });
    }
    reactor_.network().reset_connections(where);
  });
  later(until_reset + random_duration(length + milliseconds(100)),
        [this] { target_->release_held(); });
}

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
    set_access(tag, AccessState::active_optimized);
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

// The guest stops; everything must complete, and what the medium then holds must stay.
void Simulation::settle() {
  // Some faults end by themselves a little after the others.
  reactor_.run_for(seconds(8));
  end_faults();
  reactor_.run_for(seconds(1));
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->stop_guest();
  }
  const auto all_idle = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](const std::unique_ptr<SimulatedDisk>& disk) { return disk->idle(); });
  };
  if (!reactor_.run_until(all_idle, kRecoveryTime)) {
    for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
      const MultipathSnapshot snapshot = disk->device().snapshot();
      fail(fmt::format("{} requests are stuck: {} queued, {} held, {} in flight, {} paths up",
                       disk->open(), snapshot.queued, snapshot.held, snapshot.in_flight,
                       snapshot.paths_up()));
    }
    return;
  }
  const auto all_up = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [this](const std::unique_ptr<SimulatedDisk>& disk) {
                         return disk->device().snapshot().paths_up() == portals_;
                       });
  };
  if (!reactor_.run_until(all_up, kRecoveryTime)) {
    fail("not all paths came back");
    return;
  }
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->read_back();
  }
  if (!reactor_.run_until(all_idle, kRecoveryTime)) {
    fail("the last reads are stuck");
    return;
  }
  // Whatever old writes are still about now had their time.
  target_->release_held();
  reactor_.run_for(seconds(10));
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->check_medium();
  }
}

void Simulation::finish() {
  closing_ = true;
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->stop_guest();
    result_.hedged += disk->device().snapshot().hedged;
    disk->close();
  }
  const auto all_closed = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](const std::unique_ptr<SimulatedDisk>& disk) { return disk->closed(); });
  };
  // A read that another path has answered stays at its own until that answers or gives it up
  // (command_timeout): longer than any request of the guest.
  const bool closed = reactor_.run_until(all_closed, seconds(failed() ? 1 : 60));
  std::size_t stopped = 0;
  for (std::size_t at = 0; at < sessions_.size(); ++at) {
    Session* session = sessions_[at].get();
    result_.connection_losses += session->statistics().connection_losses;
    result_.stuck_commands += session->statistics().stuck_commands;
    if (uses_[at].stopping || uses_[at].stopped) {
      ++stopped;  // of a run that has failed
      continue;
    }
    session->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
  }
  if (!reactor_.run_until([&] { return stopped == sessions_.size() && all_closed(); },
                          seconds(60)) ||
      !closed) {
    fail("the devices or sessions did not close in time");
  }
  ISCSI_BLKBACK_ASSERT(all_closed() && stopped == sessions_.size());
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->check_nothing_left();
  }
  // Each path was up when its disk was closed.
  for (std::size_t disk = 0; disk < disks_.size() && !failed(); ++disk) {
    const std::size_t keys = target_->keys(static_cast<std::uint16_t>(disk)).size();
    if (keys != 0) {
      fail(fmt::format("{} keys of disk {} stay registered", keys, disk));
    }
  }
  reactor_.run_for(seconds(1));
  if (target_->sessions() != 0) {
    fail(fmt::format("{} sessions are left at the target", target_->sessions()));
  }
  if (foreign_lun_->counters.reads + foreign_lun_->counters.writes != 0) {
    fail("I/O reached a LUN that is not the disk's");
  }
  for (const std::string& violation : target_->violations) {
    fail("the initiator broke the protocol: " + violation);
  }
  result_.ghost_writes = target_->counters.executed_after_close;
  result_.fenced_tasks = target_->counters.terminated_tasks;
  result_.aborted_tasks = target_->counters.aborted_tasks;
  result_.lun_resets = target_->counters.resets;
  result_.preemptions = target_->counters.preemptions;
}

SimulationResult Simulation::run() {
  began_ = reactor_.now();
  build();
  plan_faults();
  reactor_.run_for(kFaultTime);
  settle();
  finish();
  disks_.clear();
  sessions_.clear();
  return std::move(result_);
}

}  // namespace

SimulationResult run_simulation(const SimulationOptions& options) {
  return Simulation(options).run();
}

}  // namespace iscsi_blkback
