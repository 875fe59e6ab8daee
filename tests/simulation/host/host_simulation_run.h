// The inside of the host simulation: one run.
//
//   host_simulation.cpp      the plan's events, and what is seen while they happen
//   host_simulation_end.cpp  when nothing is wrong any more: what must be served, hold, and go
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/host/host_simulation.h"
#include "tests/simulation/host/simulated_guest.h"
#include "tests/simulation/host/simulated_host.h"
#include "tests/simulation/host/simulated_storage.h"
#include "tests/simulation/host/simulated_world.h"
#include "tests/simulation/host/toolstack.h"
#include "tests/simulation/host/wire_watch.h"

namespace iscsi_blkback {

class HostSimulationRun final : public SimulatedWorld, private WireWatch::Owner {
 public:
  HostSimulationRun(const Plan& plan, const HostSimulationOptions& options);
  ~HostSimulationRun();

  HostSimulationResult run();

  // SimulatedWorld
  [[nodiscard]] SimReactor& reactor() override { return reactor_; }
  [[nodiscard]] const Plan& plan() const override { return plan_; }
  [[nodiscard]] Breakage breakage() const override { return options_.breakage; }
  [[nodiscard]] SimulatedHost& host(std::size_t number) override { return *hosts_[number]; }
  [[nodiscard]] SimulatedGuest& guest(std::size_t number) override { return *guests_[number]; }
  [[nodiscard]] SimulatedStorage& storage() override { return storage_; }
  [[nodiscard]] WireWatch& wire() override { return wire_; }
  [[nodiscard]] SectorOracle::Version next_version() override { return ++last_version_; }
  [[nodiscard]] bool weather_is_over() const override { return weather_is_over_; }
  void fail(Rule rule, std::string what) override;
  void count(std::string_view what, std::uint64_t times = 1) override;
  void note_answer(std::uint64_t what) override;

  [[nodiscard]] std::int64_t now_us() const;

 private:
  static constexpr std::size_t kMaxFailures = 3;

  // WireWatch::Owner
  [[nodiscard]] std::size_t target_at(const std::string& link) const override;
  void on_write_sent(const SimReactor& sender, std::size_t target, std::uint16_t lun) override;
  void on_command_arrived(std::size_t target, const SimCommand& command) override;
  void on_lun_reset(const SimReactor& sender, std::uint16_t lun) override;
  void on_login(std::size_t terminated, bool by_sibling) override;

  // host_simulation.cpp
  void begin_guests();
  void plan_events();
  void break_world();
  void happen(const PlannedEvent& event);

  // host_simulation_end.cpp: false: something has failed.
  [[nodiscard]] bool goes_well_for(Duration length);
  // The condition must hold within at_most, else it is this failure.
  [[nodiscard]] bool must_reach(const std::function<bool()>& condition, Duration at_most, Rule rule,
                                const std::function<std::string()>& what);
  [[nodiscard]] bool settle();
  // Every disk has been served at some time in the domain where its guest is now.
  [[nodiscard]] bool no_guest_waits();
  [[nodiscard]] bool all_served();
  [[nodiscard]] static bool is_served(SimulatedGuest& guest);
  void restart_unserved_guests();
  [[nodiscard]] Duration longest_stall() const;
  void stop_workloads();
  [[nodiscard]] bool check_data();
  [[nodiscard]] bool check_media(const char* when);
  void end_guests();
  [[nodiscard]] bool some_lun_is_blocked();
  void check_nothing_left();
  void end();
  void count_what_targets_did();
  void check_violations();
  [[nodiscard]] std::string described();

  const Plan& plan_;
  const HostSimulationOptions& options_;
  HostSimulationResult result_;
  SimReactor reactor_;
  const TimePoint began_;
  WireWatch wire_;
  SimulatedStorage storage_;
  std::vector<std::unique_ptr<SimulatedHost>> hosts_;
  std::vector<std::unique_ptr<SimulatedGuest>> guests_;
  Toolstack toolstack_;
  std::vector<std::shared_ptr<void>> held_luns_;  // Breakage::lun_is_held
  SectorOracle::Version last_version_ = 0;
  bool weather_is_over_ = false;
};

}  // namespace iscsi_blkback
