// SimulatedWorld: what the parts of one run of the host simulation have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "tests/simulation/host/plan.h"
#include "tests/simulation/host/product_process.h"
#include "tests/simulation/host/rule.h"
#include "tests/simulation/sector_oracle.h"
#include "tests/support/sim_random.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class SimulatedGuest;
class SimulatedHost;
class SimulatedLun;
class SimulatedProcess;
class SimulatedStorage;
class WireWatch;

class SimulatedWorld {
 public:
  static constexpr std::size_t kHosts = 2;

  [[nodiscard]] virtual SimReactor& reactor() = 0;
  [[nodiscard]] virtual const Plan& plan() const = 0;
  [[nodiscard]] virtual Breakage breakage() const = 0;
  [[nodiscard]] virtual SimulatedHost& host(std::size_t number) = 0;
  [[nodiscard]] virtual SimulatedGuest& guest(std::size_t number) = 0;
  [[nodiscard]] virtual SimulatedStorage& storage() = 0;
  [[nodiscard]] virtual WireWatch& wire() = 0;

  [[nodiscard]] virtual SectorOracle::Version next_version() = 0;
  // No weather any more: what is about to begin is not begun.
  [[nodiscard]] virtual bool weather_is_over() const = 0;

  virtual void fail(Rule rule, std::string what) = 0;
  // Counts something that has happened; see HostSimulationResult::happened.
  virtual void count(std::string_view what, std::uint64_t times = 1) = 0;
  // Of all that guests are told and when, so that two runs can be compared.
  virtual void note_answer(std::uint64_t what) = 0;

  void later(Duration delay, std::function<void()> what) {
    reactor().schedule(delay, std::move(what));
  }

 protected:
  ~SimulatedWorld() = default;
};

}  // namespace iscsi_blkback
