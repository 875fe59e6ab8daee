#include "tests/simulation/host/plan_profile.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

using K = EventKind;
using Weights = std::vector<EventWeight>;

std::int64_t between(SimRandom& random, std::int64_t low, std::int64_t high) {
  return static_cast<std::int64_t>(
      random.between(static_cast<std::uint64_t>(low), static_cast<std::uint64_t>(high)));
}

// ---- everything

const Weights kEverything = {
    {K::reset_connections, 4},
    {K::refuse, 3},
    {K::drop, 3},
    {K::hold, 5},
    {K::slow_link, 2},
    {K::refuse_all, 1},
    {K::lose_path, 6},
    {K::target_restart, 2},
    {K::close_portal, 2},
    {K::hang, 2},
    {K::busy, 3},
    {K::not_ready, 3},
    {K::stick, 4},
    {K::lose_writes, 8},
    {K::spoil_functions, 3},
    {K::unit_attention, 3},
    {K::controller_failover, 3},
    {K::access_change, 5},
    {K::swap_luns, 2},
    {K::slow_target, 4},
    {K::small_window, 3},
    {K::redirect, 3},
    {K::kill_process, 5},
    {K::kill_all_processes, 1},
    {K::terminate_process, 3},
    {K::stall_process, 5},
    {K::clock_jumps, 2},
    {K::kill_service, 1},
    {K::xenstored_dies, 1},
    {K::store_fails, 2},
    {K::domctl_fails, 3},
    {K::remove_path, 4},
    {K::change_policies, 2},
    {K::burst, 12},
    {K::kexec, 2},
    {K::checkpoint, 4},
    {K::save_restore, 3},
    {K::migrate, 6},
    {K::failed_migration, 4},
    {K::pause, 2},
    {K::reboot, 3},
    {K::crash, 2},
    {K::destroy, 2},
    {K::kill_and_destroy, 3},
    {K::detach, 4},
    {K::hand_over, 4},
    {K::rival, 3},
    {K::rename_lun, 3},
};

// ---- guests that move, with deep queues, from targets that take few commands at a time

const Weights kMoves = {
    {K::burst, 12},       {K::migrate, 8},     {K::failed_migration, 4}, {K::checkpoint, 4},
    {K::save_restore, 4}, {K::slow_target, 6}, {K::small_window, 5},     {K::reset_connections, 2},
    {K::lose_writes, 2},  {K::lose_path, 2},   {K::stall_process, 2},    {K::kill_process, 1},
    {K::clock_jumps, 1},  {K::reboot, 2},      {K::detach, 2},           {K::remove_path, 2},
    {K::stick, 2},        {K::rival, 2},
};

void shape_moves(Plan& plan, SimRandom& random) {
  for (PlannedTarget& target : plan.targets) {
    if (!random.one_in(3)) {
      target.window = between(random, 1, 4);
      target.delay_us = between(random, 500, 20000);
      target.single_threaded = random.one_in(2) ? 1 : 0;
    }
  }
  for (PlannedDisk& disk : plan.disks) {
    disk.depth = between(random, 6, 30);
    disk.contended = random.one_in(2) ? 1 : 0;
    disk.writes = between(random, 6, 9);
  }
}

// ---- disks that come after others at their LUN, on one host, where only time fences what those
// have lost

const Weights kSuccessors = {
    {K::stick, 8},
    {K::spoil_functions, 5},
    {K::lose_writes, 8},
    {K::hold, 5},
    {K::refuse, 3},
    {K::lose_path, 5},
    {K::detach, 8},
    {K::hand_over, 8},
    {K::reboot, 4},
    {K::crash, 2},
    {K::save_restore, 4},
    {K::migrate, 3},
    {K::checkpoint, 4},
    {K::kill_process, 4},
    {K::burst, 4},
    {K::close_portal, 3},
    {K::hang, 2},
    {K::remove_path, 2},
    {K::kill_and_destroy, 3},
    {K::rename_lun, 6},
};

void put_on_one_host(Plan& plan, SimRandom& random) {
  for (PlannedGuest& guest : plan.guests) {
    guest.host = 0;
    guest.think_us = between(random, 10000, 60000);
  }
}

// Of two guests, one after the other.
void give_luns_two_users(Plan& plan) {
  plan.guests.resize(2, plan.guests[0]);
  plan.disks.clear();
  for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
    for (std::int64_t guest = 0; guest < 2; ++guest) {
      PlannedDisk disk = simplest<PlannedDisk>();
      disk.guest = guest;
      disk.lun = static_cast<std::int64_t>(lun);
      disk.detached = guest == static_cast<std::int64_t>(lun % 2) ? 0 : 1;
      plan.disks.push_back(disk);
    }
  }
}

void shape_successors(Plan& plan, SimRandom& random) {
  put_on_one_host(plan, random);
  plan.world.run_ms = between(random, 12000, 22000);
  if (!random.one_in(4)) {
    plan.world.settle_ms = 0;
    plan.world.quiesce_ms = between(random, 2, 3) * 1000;
  }
  if (!random.one_in(3)) {  // longer than a disk takes to be taken away from its guest
    plan.world.command_timeout_ms = between(random, 5000, 20000);
  }
  for (PlannedTarget& target : plan.targets) {
    target.portals = between(random, 2, 4);
    target.groups = random.one_in(4) ? target.groups : 1;
    target.chap = 0;
  }
  for (PlannedLun& lun : plan.luns) {
    lun.no_path_retry_ms = 0;
    lun.identity = lun.identity == 0 && random.one_in(2) ? 3 : lun.identity;
  }
  give_luns_two_users(plan);
  for (PlannedDisk& disk : plan.disks) {
    disk.contended = random.one_in(3) ? 0 : 1;
    disk.writes = between(random, 5, 9);
  }
}

void on_the_same_host(PlannedEvent& event) {
  const auto arguments = arguments_of(event.kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name == "other_host") {
      event.arguments[i] = 0;
    }
  }
}

// What is stuck is so for seconds, and is executed in the end.
void for_successors(PlannedEvent& event) {
  on_the_same_host(event);
  if (event.kind == K::stick) {
    constexpr std::size_t kHow = 3;
    constexpr std::size_t kMsArgument = 4;
    constexpr std::int64_t kShortMs = 500;
    event.arguments[kHow] = 2;
    event.arguments[kMsArgument] *= event.arguments[kMsArgument] <= kShortMs ? 20 : 1;
  }
}

// ---- disks that are taken away while a target answers some of their commands later than the
// toolstack waits (20 s in all; command_timeout is 30 s where nothing is said)

const Weights kPatience = {
    {K::stick, 8},       {K::hand_over, 7},       {K::detach, 4}, {K::burst, 3},
    {K::remove_path, 1}, {K::spoil_functions, 2}, {K::hold, 1},   {K::kill_process, 1},
};

void shape_patience(Plan& plan, SimRandom& random) {
  put_on_one_host(plan, random);
  plan.world.run_ms = between(random, 32000, 45000);
  plan.world.command_timeout_ms = between(random, 24000, 40000);
  plan.world.settle_ms = 0;
  plan.world.quiesce_ms = between(random, 2, 4) * 1000;
  plan.targets.resize(1);
  plan.targets[0].portals = between(random, 2, 4);
  plan.targets[0].groups = 1;
  plan.targets[0].chap = 0;
  plan.luns.resize(2, plan.luns[0]);
  for (PlannedLun& lun : plan.luns) {
    lun.target = lun.also_at = lun.identity = lun.no_path_retry_ms = 0;
  }
  give_luns_two_users(plan);
  for (PlannedDisk& disk : plan.disks) {
    // The other LUN's requests show that the target lives.
    disk.detached = disk.guest == 0 ? 0 : 1;
    disk.contended = 1 - disk.lun;
    disk.depth = between(random, 2, 6);
    disk.writes = between(random, 5, 9);
  }
}

// What is stuck is executed when the toolstack has given up.
void for_patience(PlannedEvent& event) {
  on_the_same_host(event);
  if (event.kind == K::stick) {
    constexpr std::size_t kHow = 3;
    constexpr std::size_t kMsArgument = 4;
    constexpr std::int64_t kToolstackWaitsMs = 20000;
    event.arguments[kHow] = 2;
    event.arguments[kMsArgument] += kToolstackWaitsMs;
  }
}

// ---- processes that come after a dead one at their disks, and are suspended and resumed while they
// wait for what it has lost

const Weights kHeirs = {
    {K::lose_writes, 10},     {K::lose_path, 3}, {K::kill_process, 8},  {K::checkpoint, 12},
    {K::failed_migration, 3}, {K::burst, 4},     {K::stall_process, 1}, {K::remove_path, 1},
};

void shape_heirs(Plan& plan, SimRandom& random) {
  put_on_one_host(plan, random);
  plan.world.settle_ms = 0;
  plan.world.quiesce_ms = between(random, 3, 6) * 1000;
  for (PlannedTarget& target : plan.targets) {
    target.portals = between(random, 2, 4);
    target.groups = 1;
    target.chap = target.linger_ms = 0;
    target.window = 64;
  }
  for (PlannedLun& lun : plan.luns) {
    lun.identity = lun.no_path_retry_ms = 0;
  }
  for (PlannedDisk& disk : plan.disks) {
    disk.contended = 1;
    disk.depth = between(random, 2, 6);
    disk.writes = between(random, 5, 9);
  }
}

// What is lost stays in the target until the process that has lost it is dead.
void for_heirs(PlannedEvent& event) {
  on_the_same_host(event);
  if (event.kind == K::lose_writes) {
    constexpr std::size_t kMsArgument = 3;
    constexpr std::size_t kRefuseMs = 4;
    event.arguments[kMsArgument] += 1500;
    event.arguments[kRefuseMs] += 4000;
  }
}

// ---- successors at LUNs that tell nothing of who they are

void shape_nameless(Plan& plan, SimRandom& random) {
  shape_successors(plan, random);
  for (PlannedLun& lun : plan.luns) {
    lun.identity = 1;
  }
}

// ---- two arrays with LUNs of one name, only one of which has troubles

const Weights kTwins = {
    {K::lose_writes, 8}, {K::lose_path, 6}, {K::refuse_all, 3}, {K::burst, 4},
    {K::hold, 4},        {K::refuse, 3},    {K::stick, 3},      {K::close_portal, 3},
};

void shape_twins(Plan& plan, SimRandom& random) {
  plan.targets.resize(2, plan.targets[0]);
  plan.luns.resize(2, plan.luns[0]);
  plan.guests.resize(2, plan.guests[0]);
  plan.disks.resize(2, plan.disks[0]);
  plan.world.settle_ms = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto number = static_cast<std::int64_t>(i);
    plan.luns[i].target = number;
    plan.luns[i].also_at = 0;
    plan.luns[i].identity = number * 2;
    plan.luns[i].no_path_retry_ms = 0;
    plan.disks[i] = {.guest = number,
                     .lun = number,
                     .depth = between(random, 2, 6),
                     .contended = number == 0 ? 1 : 0,
                     .writes = 6};
    plan.guests[i].host = 0;
    plan.guests[i].begins_ms = number * between(random, 1000, 5000);
    plan.targets[i].groups = 1;
  }
  // The one that is well is also quick.
  plan.targets[1].window = 64;
  plan.targets[1].single_threaded = plan.targets[1].jitter_us = plan.targets[1].linger_ms = 0;
  plan.targets[1].delay_us = 200;
}

void at_the_first(PlannedEvent& event) {
  const auto arguments = arguments_of(event.kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name == "target" || arguments[i].name == "guest" ||
        arguments[i].name == "disk") {
      event.arguments[i] = 0;
    }
  }
}

// ---- processes that die with bytes on their way

const Weights kKills = {
    {K::kill_and_destroy, 8}, {K::kill_process, 6}, {K::kill_all_processes, 2},
    {K::burst, 10},           {K::hold, 8},         {K::hang, 4},
    {K::slow_target, 4},      {K::small_window, 3}, {K::slow_link, 4},
    {K::lose_writes, 3},      {K::hand_over, 3},    {K::kill_service, 1},
    {K::stall_process, 2},    {K::checkpoint, 2},
};

void shape_kills(Plan& plan, SimRandom& random) {
  put_on_one_host(plan, random);
  for (PlannedTarget& target : plan.targets) {
    target.chap = 0;
  }
  for (PlannedDisk& disk : plan.disks) {
    disk.contended = random.one_in(3) ? 0 : 1;
    disk.depth = between(random, 4, 24);
    disk.writes = between(random, 6, 9);
  }
}

// ---- questions that fail at the wrong moment

const Weights kQuestions = {
    {K::domctl_fails, 10},
    {K::store_fails, 8},
    {K::checkpoint, 6},
    {K::migrate, 5},
    {K::save_restore, 3},
    {K::reboot, 4},
    {K::crash, 4},
    {K::destroy, 3},
    {K::detach, 4},
    {K::hand_over, 3},
    {K::failed_migration, 3},
    {K::burst, 4},
    {K::kill_process, 2},
    {K::rival, 6},
};

// ---- xenstored dies

const Weights kXenstored = {
    {K::xenstored_dies, 4}, {K::reboot, 4},       {K::detach, 5}, {K::hand_over, 4},
    {K::migrate, 3},        {K::checkpoint, 3},   {K::crash, 2},  {K::kill_process, 2},
    {K::save_restore, 2},   {K::kill_service, 1}, {K::burst, 2},  {K::rival, 3},
};

// ---- domain numbers that are used again while their old process still fences

const Weights kDomids = {
    {K::reboot, 6},      {K::crash, 4},     {K::destroy, 6},    {K::kill_and_destroy, 3},
    {K::lose_writes, 8}, {K::lose_path, 6}, {K::refuse_all, 4}, {K::burst, 4},
    {K::refuse, 3},      {K::stick, 3},
};

void shape_domids(Plan& plan, SimRandom& random) {
  put_on_one_host(plan, random);
  plan.world.settle_ms = 0;
  plan.world.quiesce_ms = between(random, 5, 8) * 1000;
  for (PlannedTarget& target : plan.targets) {
    target.chap = 0;
    target.groups = 1;
  }
}

void with_the_same_domid(PlannedEvent& event) {
  on_the_same_host(event);
  const auto arguments = arguments_of(event.kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name == "same_domid") {
      event.arguments[i] = 1;
    }
  }
}

// ---- two disks of a guest at one target, whose options differ

const Weights kSharedTarget = {
    {K::stick, 10},      {K::spoil_functions, 8}, {K::lose_writes, 6}, {K::redirect, 6},
    {K::lose_path, 6},   {K::burst, 5},           {K::hold, 3},        {K::reset_connections, 3},
    {K::remove_path, 2}, {K::detach, 3},          {K::reboot, 2},      {K::kill_process, 2},
};

void shape_shared_target(Plan& plan, SimRandom& random) {
  plan.targets.resize(1);
  plan.luns.resize(2, plan.luns[0]);
  plan.disks.clear();
  for (std::size_t i = 0; i < 2; ++i) {
    PlannedLun& lun = plan.luns[i];
    lun.target = lun.also_at = lun.identity = lun.key = lun.no_path_retry_ms = 0;
    lun.exclusive = i == 0 ? 1 : 0;
    lun.redirected_fences = i == 0 && random.one_in(2) ? 1 : 0;
    PlannedDisk disk = simplest<PlannedDisk>();
    disk.lun = static_cast<std::int64_t>(i);
    disk.contended = random.one_in(2) ? 1 : 0;
    disk.depth = between(random, 3, 16);
    disk.writes = between(random, 4, 8);
    plan.disks.push_back(disk);
  }
  plan.targets[0].portals = between(random, 2, 4);
  plan.targets[0].other_node = random.one_in(2) ? 1 : 0;
  plan.targets[0].chap = random.one_in(6) ? 1 : 0;
  plan.world.command_timeout_ms = between(random, 300, 1500);
}

// ---- lost writes that only a command of the logical unit can fence in time

const Weights kLunFences = {
    {K::lose_path, 14}, {K::lose_writes, 6},  {K::burst, 6},        {K::spoil_functions, 2},
    {K::refuse, 3},     {K::hold, 2},         {K::close_portal, 3}, {K::remove_path, 2},
    {K::stick, 2},      {K::detach, 3},       {K::checkpoint, 2},   {K::migrate, 2},
    {K::reboot, 2},     {K::kill_process, 2}, {K::hand_over, 2},
};

void shape_lun_fences(Plan& plan, SimRandom& random) {
  plan.world.quiesce_ms = between(random, 5, 8) * 1000;
  plan.world.settle_ms = between(random, 600, 2000);
  for (PlannedTarget& target : plan.targets) {
    target.portals = between(random, 3, 4);
    target.groups = 1;
    target.chap = target.single_threaded = 0;
    target.delay_us = between(random, 50, 1500);
  }
  for (PlannedLun& lun : plan.luns) {
    lun.key = random.one_in(2) ? 1 : 0;
    lun.exclusive = 1 - lun.key;
    lun.no_path_retry_ms = 0;
  }
  for (PlannedDisk& disk : plan.disks) {
    disk.contended = 1;
    disk.depth = between(random, 2, 10);
    disk.writes = between(random, 5, 8);
  }
}

// Paths that were lost stay away for longer than it takes until a command of the LUN may fence.
void lost_for_long(PlannedEvent& event) {
  constexpr std::int64_t kLongTimeMs = 2500;
  const auto arguments = arguments_of(event.kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool of_the_path = event.kind == K::lose_path && arguments[i].name == "ms";
    const bool of_the_writes = event.kind == K::lose_writes && arguments[i].name == "refuse_ms";
    event.arguments[i] += of_the_path || of_the_writes ? kLongTimeMs : 0;
  }
}

}  // namespace

std::span<const PlanProfile> plan_profiles() {
  static const std::vector<PlanProfile> profiles = {
      {.name = "everything", .weights = kEverything, .share = 10},
      {.name = "moves", .weights = kMoves, .shape = shape_moves, .share = 2},
      {.name = "successors",
       .weights = kSuccessors,
       .shape = shape_successors,
       .shape_event = for_successors,
       .share = 3},
      {.name = "patience",
       .weights = kPatience,
       .shape = shape_patience,
       .shape_event = for_patience,
       .shortest_mean_ms = 800,
       .longest_mean_ms = 3000,
       .share = 1},
      {.name = "heirs",
       .weights = kHeirs,
       .shape = shape_heirs,
       .shape_event = for_heirs,
       .share = 1},
      {.name = "nameless",
       .weights = kSuccessors,
       .shape = shape_nameless,
       .shape_event = for_successors,
       .share = 1},
      {.name = "twins",
       .weights = kTwins,
       .shape = shape_twins,
       .shape_event = at_the_first,
       .share = 1},
      {.name = "kills",
       .weights = kKills,
       .shape = shape_kills,
       .shape_event = on_the_same_host,
       .share = 2},
      {.name = "questions", .weights = kQuestions, .share = 1},
      {.name = "xenstored", .weights = kXenstored, .longest_mean_ms = 1500, .share = 1},
      {.name = "domids",
       .weights = kDomids,
       .shape = shape_domids,
       .shape_event = with_the_same_domid,
       .share = 1},
      {.name = "shared_target", .weights = kSharedTarget, .shape = shape_shared_target, .share = 1},
      {.name = "lun_fences",
       .weights = kLunFences,
       .shape = shape_lun_fences,
       .shape_event = lost_for_long,
       .shortest_mean_ms = 300,
       .longest_mean_ms = 1200,
       .share = 3},
  };
  return profiles;
}

}  // namespace iscsi_blkback
