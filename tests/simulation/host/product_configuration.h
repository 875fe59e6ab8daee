// What the plan's world comes to in the product's configuration. With product_process.h the only
// place that knows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "multipath/attach/configuration.h"
#include "tests/simulation/host/breakage.h"
#include "tests/simulation/host/plan.h"

namespace iscsi_blkback {

// How things are called.
[[nodiscard]] std::string target_name(std::size_t target);
[[nodiscard]] SocketAddress portal_address(std::size_t target, std::size_t portal);
[[nodiscard]] std::string chap_user(std::size_t lun);
[[nodiscard]] std::string chap_secret(std::size_t lun);
// The number that a LUN has at its targets.
[[nodiscard]] std::uint16_t lun_number(std::size_t lun);

// What tells LUNs apart: the last eight bytes of the NAA identifier; nullopt: the LUN has none. And
// the whole as the product has it (MultipathSnapshot::wwid).
[[nodiscard]] std::optional<std::uint64_t> lun_extension(const Plan& plan, std::size_t lun);
// Whether that is unlike all others in the world: LUNs that share one have it from targets that are
// no company's.
[[nodiscard]] bool lun_has_company(const Plan& plan, std::size_t lun);
[[nodiscard]] std::string lun_wwid(const Plan& plan, std::size_t lun);
// A LUN that only one target leads to: what it has all the time is no name for others.
[[nodiscard]] bool lun_changes_its_names(const Plan& plan, std::size_t lun);
// Of such a LUN, at all times.
[[nodiscard]] std::string lun_t10_name(std::size_t lun);

// The target that a disk goes by.
[[nodiscard]] std::size_t target_of(const Plan& plan, const PlannedDisk& disk);
[[nodiscard]] std::size_t lun_of(const Plan& plan, const PlannedDisk& disk);
[[nodiscard]] std::size_t guest_of(const Plan& plan, const PlannedDisk& disk);
// What its disk line says: "aio:iscsi://...".
[[nodiscard]] std::string disk_params(const Plan& plan, const PlannedDisk& disk);

// Of the processes of one host.
[[nodiscard]] Configuration make_configuration(const Plan& plan, std::size_t host,
                                               const std::string& run_directory, Breakage breakage);

// The longest that it may take until a disk is served once nothing is wrong any more, as its
// options and the product's waiting times have it.
[[nodiscard]] Duration longest_recovery(const Plan& plan);

// How many portals of what the plan says there are, and so on: any number is allowed in a plan.
[[nodiscard]] inline std::size_t within(std::int64_t number, std::size_t count) {
  const auto unsigned_number = static_cast<std::uint64_t>(number < 0 ? -number : number);
  return static_cast<std::size_t>(unsigned_number % count);
}
[[nodiscard]] inline std::size_t bounded(std::int64_t number, std::size_t low, std::size_t high) {
  return low + within(number - static_cast<std::int64_t>(low), high - low + 1);
}

}  // namespace iscsi_blkback
