// SimulatedStorage: the targets of the simulation with their LUNs, and what each sector of those
// may read as. All hosts, and all guests that use a LUN one after the other, share its oracle.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/host/simulated_world.h"
#include "tests/simulation/sector_oracle.h"
#include "tests/support/sim_lun.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

class SimulatedLun {
 public:
  // Of a discard; less than one may have, and no multiple of the LUN's granularity.
  static constexpr std::uint32_t kMaxUnmapSectors = 12;

  SimulatedLun(const Plan& plan, std::size_t index);

  [[nodiscard]] SimLun& lun() { return *lun_; }
  [[nodiscard]] const std::shared_ptr<SimLun>& shared() const { return lun_; }
  [[nodiscard]] SectorOracle& oracle() { return oracle_; }
  [[nodiscard]] std::uint64_t sectors() const { return sectors_; }

  // Something has gone wrong at its target, or somebody has used it before: what it makes wait may
  // have a reason.
  void disturb() { disturbed_ = true; }
  [[nodiscard]] bool disturbed() const { return disturbed_; }

  // The disk (by its place in the plan) that it is attached as; it is never attached twice.
  std::optional<std::size_t> user;

 private:
  const std::uint64_t sectors_;
  std::shared_ptr<SimLun> lun_;
  SectorOracle oracle_;
  bool disturbed_ = false;
};

class SimulatedStorage {
 public:
  explicit SimulatedStorage(SimulatedWorld& world);
  ~SimulatedStorage();

  [[nodiscard]] std::size_t targets() const { return targets_.size(); }
  [[nodiscard]] SimTarget& target(std::size_t number) { return *targets_[number]; }
  // Those of the disk lines; there may be one more, that only redirects lead to.
  [[nodiscard]] std::size_t portals(std::size_t target) const;
  [[nodiscard]] std::optional<std::size_t> portal_of_other_node(std::size_t target) const;
  [[nodiscard]] std::size_t luns() const { return luns_.size(); }
  [[nodiscard]] SimulatedLun& lun(std::size_t number) { return *luns_[number]; }
  // Which LUN has this number at its targets; nullopt: none.
  [[nodiscard]] std::optional<std::size_t> lun_numbered(std::uint16_t number) const;
  [[nodiscard]] std::size_t target_at(const std::string& link) const;

  // All LUNs of the target: see SimulatedLun::disturb().
  void disturb_target(std::size_t target);
  // After a restart other LUNs are behind the numbers.
  void map_luns(std::size_t target, bool foreign);
  // Of those whose names change, whether they have the better one beside the other. False: none.
  bool rename_luns(std::size_t target, bool better);
  void set_access(std::size_t target, std::uint16_t group, AccessState state);
  // As the plan has it, whatever events have changed; and quick.
  void end_weather(std::size_t target);
  [[nodiscard]] bool foreign_lun_was_used() const;
  // How long after its initiator has gone a command may still be executed.
  [[nodiscard]] static Duration late_limit(const Plan& plan);

 private:
  void on_landed(std::size_t lun, std::uint64_t sector, std::span<const std::byte> data);
  [[nodiscard]] SimTargetOptions options_of(std::size_t target) const;
  void build_network(std::size_t target);
  void add_luns(std::size_t target);
  [[nodiscard]] bool login_fences_at_all_nodes(std::size_t target) const;
  [[nodiscard]] bool leads_to(std::size_t target, std::size_t lun) const;

  SimulatedWorld& world_;
  std::vector<std::unique_ptr<SimulatedLun>> luns_;
  std::vector<std::unique_ptr<SimTarget>> targets_;
  std::vector<bool> swapped_;  // by target
  std::shared_ptr<SimLun> foreign_;
};

}  // namespace iscsi_blkback
