#include "tests/simulation/host/product_configuration.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A host's part of a key has 24 bits.
constexpr std::uint64_t kReservationKeys = 0x5a0000;

SessionOptions session_options(const Plan& plan, std::size_t lun) {
  const PlannedWorld& world = plan.world;
  const PlannedLun& planned = plan.luns[lun];
  SessionOptions session;
  session.command_timeout = milliseconds(world.command_timeout_ms);
  session.abort_timeout = milliseconds(world.abort_timeout_ms);
  session.lu_reset_timeout = milliseconds(world.abort_timeout_ms);
  session.tgt_reset_timeout = milliseconds(world.abort_timeout_ms);
  session.path_timeout = milliseconds(world.path_timeout_ms);
  session.max_commands = static_cast<std::uint16_t>(bounded(world.max_commands, 1, 4096));
  session.connect_timeout = seconds(1);
  session.login_timeout = seconds(3);
  session.logout_timeout = seconds(1);
  session.noop_out_interval = seconds(2);
  session.noop_out_timeout = seconds(2);
  session.tcp_user_timeout = seconds(3);
  if (plan.targets[within(planned.target, plan.targets.size())].chap != 0) {
    session.chap.username = chap_user(lun);
    session.chap.password = chap_secret(lun);
  }
  return session;
}

// Policies that change the order of what is sent, but not what may happen to it.
void vary(MultipathOptions& multipath, const Plan& plan, std::size_t lun) {
  SimRandom random(plan.seed * 977 + lun);
  if (plan.targets[within(plan.luns[lun].target, plan.targets.size())].tpgs != 0) {
    if (random.one_in(2)) {
      multipath.path_grouping_policy =
          random.one_in(2) ? PathGroupingPolicy::group_by_prio : PathGroupingPolicy::group_by_tpg;
    }
    if (random.one_in(3)) {
      multipath.failback = Failback{};
    }
  } else {
    multipath.path_grouping_policy =
        random.one_in(3) ? PathGroupingPolicy::failover : PathGroupingPolicy::multibus;
  }
  multipath.path_selector = static_cast<PathSelectorKind>(random.below(4));
  if (multipath.path_selector == PathSelectorKind::round_robin) {
    multipath.rr_min_io = static_cast<std::uint32_t>(random.between(1, 10));
  }
}

// No target of the LUN has portals in one group that know nothing of each other.
bool groups_are_true(const Plan& plan, const PlannedLun& lun) {
  const auto are_true = [&plan](std::int64_t target) {
    return plan.targets[within(target, plan.targets.size())].nodes == 0;
  };
  return are_true(lun.target) && (lun.also_at == 0 || are_true(lun.also_at - 1));
}

MultipathOptions multipath_options(const Plan& plan, std::size_t lun, std::size_t host) {
  const PlannedWorld& world = plan.world;
  const PlannedLun& planned = plan.luns[lun];
  MultipathOptions multipath;
  multipath.polling_interval = milliseconds(world.polling_ms);
  multipath.max_polling_interval = std::max(multipath.polling_interval, milliseconds(4000));
  multipath.checker_timeout = seconds(4);
  multipath.quiesce_time = milliseconds(world.quiesce_ms);
  multipath.fence_settle_time =
      world.settle_ms > 0 ? milliseconds(world.settle_ms) : multipath.quiesce_time;
  multipath.max_requests = 128;  // a ring of the simulation has at most 64 slots
  multipath.exclusive_luns = planned.exclusive != 0;
  multipath.redirected_login_fences = planned.redirected_fences != 0;
  // The operator's word is true; where there is none, trials tell the targets that lie from others.
  const bool vouched = planned.vouched != 0 && groups_are_true(plan, planned);
  multipath.portal_group_fences = vouched ? PortalGroupFences::yes : PortalGroupFences::trial;
  if (planned.key != 0) {
    multipath.reservation_key = kReservationKeys + host + 1;
  }
  if (planned.no_path_retry_ms != 0) {
    multipath.no_path_retry = milliseconds(planned.no_path_retry_ms);
  }
  if (world.settings_varied != 0) {
    vary(multipath, plan, lun);
  }
  // Other LUNs may be behind the numbers when a disk is opened: the operator says which is meant.
  if (std::any_of(plan.events.begin(), plan.events.end(),
                  [](const PlannedEvent& event) { return event.kind == EventKind::swap_luns; })) {
    multipath.wwid = lun_wwid(plan, lun);
  }
  return multipath;
}

void break_options(Breakage breakage, SessionOptions& session, MultipathOptions& multipath) {
  if (breakage == Breakage::requests_fail) {
    multipath.no_path_retry = milliseconds(0);
  } else if (breakage == Breakage::everything_exclusive) {
    multipath.exclusive_luns = true;
  } else if (breakage == Breakage::one_login_for_all && session.chap.enabled()) {
    session.chap.username = chap_user(0);
    session.chap.password = chap_secret(0);
  }
}

}  // namespace

std::string target_name(std::size_t target) {
  return fmt::format("iqn.2026-01.test:target{}", target);
}

SocketAddress portal_address(std::size_t target, std::size_t portal) {
  return SocketAddress::parse(fmt::format("10.0.{}.{}", target, portal + 1), kIscsiPort).value();
}

std::string chap_user(std::size_t lun) {
  return fmt::format("user{}", lun);
}

std::string chap_secret(std::size_t lun) {
  return fmt::format("the secret of {}", lun);
}

std::uint16_t lun_number(std::size_t lun) {
  return static_cast<std::uint16_t>(lun + 1);
}

std::optional<std::uint64_t> lun_extension(const Plan& plan, std::size_t lun) {
  const PlannedLun& planned = plan.luns[lun];
  if (planned.identity == 1) {
    return std::nullopt;
  }
  return planned.identity == 2 && lun > 0 ? lun : lun + 1;
}

bool lun_has_company(const Plan& plan, std::size_t lun) {
  return plan.luns[lun].identity != 2 &&
         (lun + 1 == plan.luns.size() || plan.luns[lun + 1].identity != 2);
}

bool lun_changes_its_names(const Plan& plan, std::size_t lun) {
  return plan.luns[lun].identity == 3 && plan.luns[lun].also_at == 0;
}

std::string lun_t10_name(std::size_t lun) {
  return fmt::format("SIM     LUN{}", lun);
}

std::string lun_wwid(const Plan& plan, std::size_t lun) {
  if (lun_changes_its_names(plan, lun)) {
    return "1" + lun_t10_name(lun);
  }
  const auto extension = lun_extension(plan, lun);
  return !extension ? std::string()
                    : fmt::format("36{}000000000{:016x}",
                                  lun_has_company(plan, lun) ? "001405" : "000000", *extension);
}

std::size_t lun_of(const Plan& plan, const PlannedDisk& disk) {
  return within(disk.lun, plan.luns.size());
}

std::size_t guest_of(const Plan& plan, const PlannedDisk& disk) {
  return within(disk.guest, plan.guests.size());
}

std::size_t target_of(const Plan& plan, const PlannedDisk& disk) {
  const PlannedLun& lun = plan.luns[lun_of(plan, disk)];
  const bool other = disk.other_way != 0 && lun.also_at != 0;
  return within(other ? lun.also_at - 1 : lun.target, plan.targets.size());
}

std::string disk_params(const Plan& plan, const PlannedDisk& disk) {
  const std::size_t target = target_of(plan, disk);
  std::string portals;
  for (std::size_t portal = 0; portal < bounded(plan.targets[target].portals, 1, 4); ++portal) {
    portals += fmt::format("{}10.0.{}.{}", portal == 0 ? "" : ",", target, portal + 1);
  }
  return fmt::format("aio:iscsi://{}/{}/{}", portals, target_name(target),
                     lun_number(lun_of(plan, disk)));
}

Configuration make_configuration(const Plan& plan, std::size_t host,
                                 const std::string& run_directory, Breakage breakage) {
  Configuration configuration;
  configuration.initiator_name = fmt::format("iqn.2026-01.test:host{}", host);
  configuration.run_directory = run_directory;
  configuration.poll_max_us = static_cast<std::uint32_t>(bounded(plan.world.poll_max_us, 0, 1000));
  configuration.max_buffers_mb =
      static_cast<std::uint32_t>(bounded(plan.world.max_buffers_mb, 3, 64));
  const bool one_queue = host == 1 && plan.world.uneven_hosts != 0;
  configuration.max_queues =
      one_queue ? 1 : static_cast<std::uint32_t>(bounded(plan.world.max_queues, 1, 16));
  for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
    ConfiguredLun configured;
    configured.lun = lun_number(lun);
    configured.session = session_options(plan, lun);
    configured.multipath = multipath_options(plan, lun, host);
    break_options(breakage, configured.session, configured.multipath);
    configured.alias = fmt::format("lun{}", lun);
    configured.multipath.alias = configured.alias;
    configured.target_name = target_name(within(plan.luns[lun].target, plan.targets.size()));
    configuration.luns[configured.alias] = configured;
    if (plan.luns[lun].also_at != 0) {
      configured.alias += "-too";
      configured.multipath.alias = configured.alias;
      configured.target_name = target_name(within(plan.luns[lun].also_at - 1, plan.targets.size()));
      configuration.luns[configured.alias] = configured;
    }
  }
  return configuration;
}

Duration longest_recovery(const Plan& plan) {
  // A process that has failed often is started again after up to 30 s; a path is found again by a
  // login and a check; what was lost last is fenced by the quiesce time.
  return seconds(45) + milliseconds(plan.world.quiesce_ms) * 2 +
         milliseconds(plan.world.command_timeout_ms + plan.world.abort_timeout_ms * 2) * 2;
}

}  // namespace iscsi_blkback
