// What a LUN and its target say of themselves, as `lunex info` asks and prints it: identification,
// limits, target port groups, reservations, the target's LUNs, the outcome of the login. Nothing is
// changed at the LUN. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/printable_text.h"
#include "base/reactor.h"
#include "base/result.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

struct LunexInfo {
  std::string target_name;
  std::string portal;  // that was asked
  std::uint32_t lun = 0;
  NegotiatedParameters login;
  LogicalUnitIdentity identity;
  // What the LUN does not answer is left out.
  std::optional<TargetPortGroups> port_groups;
  std::optional<ReservationKeys> reservation_keys;
  std::optional<ReservationState> reservation;
  std::vector<std::uint64_t> luns;  // that this target reports
};

// Runs the reactor until the condition holds; false when it takes too long.
using RunUntil = std::function<bool(const std::function<bool()>& condition)>;

// session: logged in, and outlives the call. Errors: the LUN's.
[[nodiscard]] Result<LunexInfo> ask_lun(Reactor& reactor, Session& session, std::uint32_t lun,
                                        const RunUntil& run_until);

[[nodiscard]] PrintableLines info_text(const LunexInfo& info);
[[nodiscard]] nlohmann::json info_json(const LunexInfo& info);

}  // namespace iscsi_blkback
