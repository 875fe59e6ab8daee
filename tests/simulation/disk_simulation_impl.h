// The inside of DiskSimulation: one run; included by disk_simulation*.cpp only.
//
//   disk_simulation.cpp         the run, and what must hold when the faults have ended
//   disk_simulation_world.cpp   what the seed chooses: target, network, policies, disks, sessions
//   disk_simulation_faults.cpp  the plan of faults: connections, commands, the target's process
//   disk_simulation_array.cpp   what the array does: controllers, port groups, other LUNs
//   disk_simulation_paths.cpp   paths and whole disks that come and go, policies that change
//
// The world is drawn from one sequence of random numbers, and each fault from one of its own, when
// it begins: a fault that is left out does not change what the others do.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/disk_simulation.h"
#include "tests/simulation/simulated_disk.h"
#include "tests/support/sim_barrier_jobs.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_random.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class Simulation final : public SimulatedDisk::World {
 public:
  explicit Simulation(const SimulationOptions& options)
      : options_(options), random_(options.seed * 0x9e3779b9 + 17), reactor_(options.seed) {}

  SimulationResult run();

  [[nodiscard]] SimReactor& reactor() override { return reactor_; }
  [[nodiscard]] SharedFencing& fencing() override { return fencing_; }
  void fail(std::string what) override;
  [[nodiscard]] bool failed() const { return !result_.failures.empty(); }
  // All requests go to the same few sectors, and writes are lost more often than anything else.
  [[nodiscard]] bool contended() const override { return contended_; }
  [[nodiscard]] SectorOracle::Version next_version() override { return ++last_version_; }
  void count_answer(BlockOperation operation, IoStatus status) override;
  void path_removed(std::uint16_t lun_number, Session& session) override;

 private:
  static constexpr Duration kFaultTime = std::chrono::seconds(12);

  // The plan of Canary::no_settling: paths are lost for long with bytes under way, and only a
  // command of the logical unit can fence what they have lost.
  [[nodiscard]] bool only_lun_fences() const { return options_.canary == Canary::no_settling; }

  // disk_simulation.cpp
  void settle();
  void finish();
  void check_nothing_left();
  void count_what_the_target_did();

  // disk_simulation_world.cpp
  void build();
  [[nodiscard]] SimTargetOptions choose_target();
  void choose_network(const SocketAddress& where);
  [[nodiscard]] MultipathOptions choose_policies();
  void build_disks(MultipathOptions options);
  void build_port_groups(SimLun& lun);
  void build_sessions(const std::string& target_name);
  [[nodiscard]] std::string described(const SimTargetOptions& target,
                                      const MultipathOptions& policies) const;
  [[nodiscard]] SocketAddress address(std::size_t portal) const;

  // disk_simulation_faults.cpp
  void plan_faults();
  void inject_fault();
  void refuse(const SocketAddress& where, Duration length);
  void drop_one_direction(const SocketAddress& where, Duration length);
  void hold_back(const SocketAddress& where, SimDirection direction, Duration length);
  void cut_connections(const SocketAddress& where);
  void slow_down(const SocketAddress& where, Duration length);
  void lose_path_with_bytes_under_way(std::size_t portal);
  void lose_writes(std::size_t portal, Duration length);
  void be_busy(std::uint32_t at_least, std::uint32_t at_most);
  void be_not_ready(std::size_t portal);
  void stick_commands(std::size_t portal);
  void spoil_functions(Duration length);
  void end_faults();
  [[nodiscard]] Duration outage();
  [[nodiscard]] Duration shortened(Duration delay, Duration at_most) const {
    return lun_fences_ == LunFences::none ? delay : std::min(delay, at_most);
  }

  // disk_simulation_array.cpp
  void fail_over_controller(Duration length);
  // tells: by a unit attention; else polling finds it.
  void set_access(std::uint16_t tag, AccessState state, bool tells);
  void change_access(Duration length);
  void swap_luns(Duration length);
  void map_luns(bool foreign);

  // disk_simulation_paths.cpp
  void remove_path(std::size_t disk, std::size_t portal, Duration length);
  void add_path_again(std::size_t disk, std::size_t portal);
  void change_policies();
  void lose_disk(std::size_t disk, std::size_t portal, Duration length);
  void attach_again(std::size_t disk);
  void suspend(std::size_t disk, Duration length);

  [[nodiscard]] Duration random_duration(Duration at_most) {
    return Duration{
        static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(at_most.count())))};
  }
  void later(Duration delay, std::function<void()> what) {
    reactor_.schedule(delay, std::move(what));
  }

  const SimulationOptions options_;
  SimRandom random_;
  TemporaryFolder marks_;
  SimReactor reactor_;
  SimBarrierJobs barrier_jobs_{reactor_, SimBarrierJobs::Back::later};
  SharedFencing fencing_{reactor_, &barrier_jobs_};
  TimePoint began_{};
  std::size_t portals_ = 0;
  bool contended_ = false;
  bool through_ring_ = false;
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

}  // namespace iscsi_blkback
