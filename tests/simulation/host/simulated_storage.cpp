#include "tests/simulation/host/simulated_storage.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/wire_watch.h"
#include "tests/support/sim_network.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kMaxPortals = 4;
constexpr std::uint64_t kForeignExtension = 99;
// A target that takes so long for a command, as no generated plan has it, stays so in the end.
constexpr milliseconds kSlowByNature{100};

// VPD page 0x83 of a LUN whose names change.
std::vector<std::byte> names_page(const Plan& plan, std::size_t lun, bool better) {
  const std::string t10 = lun_t10_name(lun);
  std::string body = {2, 1, 0, static_cast<char>(t10.size())};
  body += t10;
  if (better) {
    body += std::string("\1\3\0\x10\x60\1\x40\x50\0\0\0\0", 12);
    const std::uint64_t extension = lun_extension(plan, lun).value_or(0);
    for (int shift = 56; shift >= 0; shift -= 8) {
      body += static_cast<char>(extension >> shift & 0xff);
    }
  }
  const std::string page = std::string("\0\x83\0", 3) + static_cast<char>(body.size()) + body;
  const auto* const bytes = reinterpret_cast<const std::byte*>(page.data());
  return {bytes, bytes + page.size()};
}

SimLunOptions lun_options(const Plan& plan, std::size_t index) {
  const PlannedLun& planned = plan.luns[index];
  SimLunOptions options;
  options.block_count = bounded(planned.sectors, 16, 256);
  options.max_transfer_blocks =
      planned.max_transfer == 0 ? 0
                                : static_cast<std::uint32_t>(bounded(planned.max_transfer, 3, 64));
  options.thin_provisioned = planned.thin != 0;
  options.has_unmap = planned.thin != 2;
  options.max_unmap_blocks = SimulatedLun::kMaxUnmapSectors;
  const std::optional<std::uint64_t> extension = lun_extension(plan, index);
  options.serial = extension ? fmt::format("SERIAL{}", *extension) : "";
  options.naa_extension = extension.value_or(0);
  options.naa_has_company = lun_has_company(plan, index);
  if (lun_changes_its_names(plan, index)) {
    options.pages[0x83] = names_page(plan, index, false);
  }
  options.tpgs = static_cast<std::uint8_t>(
      bounded(plan.targets[within(planned.target, plan.targets.size())].tpgs, 0, 3));
  return options;
}

// Two target port groups, of every other portal, whatever portal groups these are in.
void add_port_groups(SimLun& lun, std::size_t portals) {
  if (lun.options.tpgs == 0 || !lun.options.port_groups.empty()) {
    return;
  }
  for (std::size_t group = 0; group < std::min<std::size_t>(portals, 2); ++group) {
    TargetPortGroup& made = lun.options.port_groups.emplace_back();
    made.tag = static_cast<std::uint16_t>(group + 1);
    made.state = group == 0 ? AccessState::active_optimized : AccessState::active_non_optimized;
    for (std::size_t portal = group; portal < kMaxPortals + 1; portal += 2) {
      made.ports.push_back(static_cast<std::uint16_t>(portal + 1));
    }
  }
}

}  // namespace

SimulatedLun::SimulatedLun(const Plan& plan, std::size_t index)
    : sectors_(bounded(plan.luns[index].sectors, 16, 256)),
      lun_(std::make_shared<SimLun>(lun_options(plan, index))),
      oracle_(sectors_) {}

SimulatedStorage::SimulatedStorage(SimulatedWorld& world) : world_(world) {
  const Plan& plan = world.plan();
  for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
    luns_.push_back(std::make_unique<SimulatedLun>(plan, lun));
    luns_.back()->lun().on_written = [this, lun](std::uint64_t sector,
                                                 std::span<const std::byte> data) {
      on_landed(lun, sector, data);
    };
  }
  foreign_ = std::make_shared<SimLun>(
      SimLunOptions{.block_count = 256, .serial = "FOREIGN", .naa_extension = kForeignExtension});
  for (std::size_t target = 0; target < plan.targets.size(); ++target) {
    targets_.push_back(std::make_unique<SimTarget>(world.reactor(), options_of(target)));
    swapped_.push_back(false);
    add_luns(target);
    build_network(target);
    targets_.back()->set_observer(&world.wire().observer_of(target));
  }
}

SimulatedStorage::~SimulatedStorage() {
  for (const std::unique_ptr<SimTarget>& target : targets_) {
    target->set_observer(nullptr);
  }
}

void SimulatedStorage::on_landed(std::size_t lun, std::uint64_t sector,
                                 std::span<const std::byte> data) {
  if (std::string wrong = luns_[lun]->oracle().lands(sector, data); !wrong.empty()) {
    world_.fail(Rule::data, fmt::format("LUN {}: {}", lun, std::move(wrong)));
  }
  const bool is_discard =
      std::all_of(data.begin(), data.end(), [](std::byte byte) { return byte == std::byte{0}; });
  if (is_discard && world_.breakage() == Breakage::discards_come_again) {
    world_.later(milliseconds(5), [this, lun, sector, bytes = data.size()] {
      std::vector<std::byte>& medium = luns_[lun]->lun().medium();
      const auto again = std::span(medium).subspan(sector * kSectorBytes, bytes);
      std::fill(again.begin(), again.end(), std::byte{0});
    });
  }
}

Duration SimulatedStorage::late_limit(const Plan& plan) {
  return milliseconds(plan.world.quiesce_ms) * 4 / 5;
}

std::size_t SimulatedStorage::portals(std::size_t target) const {
  return bounded(world_.plan().targets[target].portals, 1, kMaxPortals);
}

std::optional<std::size_t> SimulatedStorage::portal_of_other_node(std::size_t target) const {
  return world_.plan().targets[target].other_node != 0 ? std::optional(portals(target))
                                                       : std::nullopt;
}

SimTargetOptions SimulatedStorage::options_of(std::size_t number) const {
  const Plan& plan = world_.plan();
  const PlannedTarget& planned = plan.targets[number];
  SimTargetOptions options;
  options.name = target_name(number);
  const bool nodes_are_one = login_fences_at_all_nodes(number);
  for (std::size_t portal = 0; portal < portals(number); ++portal) {
    const std::size_t tag = planned.groups == 0   ? 1
                            : planned.groups == 1 ? portal + 1
                                                  : portal / 2 + 1;
    options.portals.push_back(
        {portal_address(number, portal), static_cast<std::uint16_t>(tag),
         planned.nodes != 0 && !nodes_are_one ? static_cast<unsigned>(portal % 2) : 0U});
  }
  if (planned.other_node != 0) {
    options.portals.push_back(
        {portal_address(number, portals(number)), 1, nodes_are_one ? 0U : 2U});
  }
  options.tells_portal_group = planned.silent_groups == 0;
  options.window = static_cast<std::uint32_t>(bounded(planned.window, 1, 256));
  options.single_threaded = planned.single_threaded != 0;
  options.command_delay = microseconds(planned.delay_us);
  options.command_jitter = microseconds(planned.jitter_us);
  options.linger_delay = milliseconds(planned.linger_ms);
  options.initial_r2t = planned.solicited != 0;
  options.immediate_data = planned.solicited == 0;
  options.max_recv_data_segment_length = planned.small_pdus != 0 ? 1024 : 65536;
  options.first_burst_length = planned.small_pdus != 0 ? 2048 : 65536;
  options.late_execution_limit = late_limit(plan);
  options.late_arrival_limit =
      plan.world.settle_ms > 0 ? milliseconds(plan.world.settle_ms) * 4 / 5 : late_limit(plan);
  for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
    if (planned.chap != 0 && leads_to(number, lun)) {
      options.chap_secrets[chap_user(lun)] = chap_secret(lun);
      options.lun_owners[lun_number(lun)] = chap_user(lun);
    }
  }
  return options;
}

// A login ends all tasks of its nexus, whatever their LUN (RFC 7143 6.3.5): where that is true at
// all nodes for one LUN, it is for the others there.
bool SimulatedStorage::login_fences_at_all_nodes(std::size_t target) const {
  const std::vector<PlannedLun>& luns = world_.plan().luns;
  for (std::size_t lun = 0; lun < luns.size(); ++lun) {
    if (luns[lun].redirected_fences != 0 && leads_to(target, lun)) {
      return true;
    }
  }
  return false;
}

bool SimulatedStorage::leads_to(std::size_t target, std::size_t lun) const {
  const Plan& plan = world_.plan();
  const PlannedLun& planned = plan.luns[lun];
  return within(planned.target, plan.targets.size()) == target ||
         (planned.also_at != 0 && within(planned.also_at - 1, plan.targets.size()) == target);
}

void SimulatedStorage::add_luns(std::size_t target) {
  for (std::size_t lun = 0; lun < luns_.size(); ++lun) {
    if (leads_to(target, lun)) {
      add_port_groups(luns_[lun]->lun(), portals(target));
      targets_[target]->add_lun(lun_number(lun), luns_[lun]->shared());
    }
  }
}

void SimulatedStorage::build_network(std::size_t target) {
  const PlannedTarget& planned = world_.plan().targets[target];
  SimNetwork& network = world_.reactor().network();
  for (unsigned computer = 0; computer < SimulatedWorld::kHosts; ++computer) {
    network.choose_computer(computer);
    for (std::size_t portal = 0; portal <= portals(target); ++portal) {
      const SocketAddress where = portal_address(target, portal);
      network.set_latency(where, microseconds(planned.latency_us),
                          microseconds(planned.latency_us / 4));
      network.set_reset_policy(where, SimResetPolicy::random);
      if (planned.split != 0) {
        network.set_split(where, SimDirection::to_client, 3000);
        network.set_split(where, SimDirection::to_server, 3000);
      }
    }
  }
}

std::optional<std::size_t> SimulatedStorage::lun_numbered(std::uint16_t number) const {
  return number >= 1 && number <= luns_.size() ? std::optional<std::size_t>(number - 1)
                                               : std::nullopt;
}

std::size_t SimulatedStorage::target_at(const std::string& link) const {
  for (std::size_t target = 0; target < targets_.size(); ++target) {
    for (std::size_t portal = 0; portal <= portals(target); ++portal) {
      if (portal_address(target, portal).to_string() == link) {
        return target;
      }
    }
  }
  return 0;
}

void SimulatedStorage::disturb_target(std::size_t target) {
  for (std::size_t lun = 0; lun < luns_.size(); ++lun) {
    if (leads_to(target, lun)) {
      luns_[lun]->disturb();
    }
  }
}

void SimulatedStorage::map_luns(std::size_t target, bool foreign) {
  if (swapped_[target] == foreign) {
    return;
  }
  swapped_[target] = foreign;
  targets_[target]->stop();
  for (std::size_t lun = 0; lun < luns_.size(); ++lun) {
    if (leads_to(target, lun)) {
      targets_[target]->add_lun(lun_number(lun), foreign ? foreign_ : luns_[lun]->shared());
    }
  }
  targets_[target]->start();
}

bool SimulatedStorage::rename_luns(std::size_t target, bool better) {
  const Plan& plan = world_.plan();
  bool renamed = false;
  for (std::size_t lun = 0; lun < luns_.size(); ++lun) {
    if (leads_to(target, lun) && lun_changes_its_names(plan, lun)) {
      luns_[lun]->lun().options.pages[0x83] = names_page(plan, lun, better);
      renamed = true;
    }
  }
  return renamed;
}

void SimulatedStorage::set_access(std::size_t target, std::uint16_t group, AccessState state) {
  for (std::size_t lun = 0; lun < luns_.size(); ++lun) {
    if (!leads_to(target, lun)) {
      continue;
    }
    for (TargetPortGroup& port_group : luns_[lun]->lun().options.port_groups) {
      if (port_group.tag == group) {
        port_group.state = state;
      }
    }
  }
}

void SimulatedStorage::end_weather(std::size_t number) {
  SimTarget& target = *targets_[number];
  const SimTargetOptions planned = options_of(number);
  target.set_hung(false);
  map_luns(number, false);
  // Too slow for all that is asked of it is something that is wrong, too. What is no more than slow
  // has to be lived with.
  const bool slow_by_nature = planned.command_delay >= kSlowByNature;
  target.options().command_delay = slow_by_nature ? planned.command_delay : microseconds(200);
  target.options().single_threaded = false;
  target.options().window = planned.window;
  target.start();
  target.clear_faults();
  target.fault_functions(TaskFunction::abort_task, std::nullopt);
  target.fault_functions(TaskFunction::logical_unit_reset, std::nullopt);
  target.release_held();
  for (std::size_t portal = 0; portal < portals(number); ++portal) {
    target.redirect_logins(portal, "");
  }
  set_access(number, 1, AccessState::active_optimized);
  set_access(number, 2, AccessState::active_non_optimized);
}

bool SimulatedStorage::foreign_lun_was_used() const {
  return foreign_->counters.reads + foreign_->counters.writes != 0;
}

}  // namespace iscsi_blkback
