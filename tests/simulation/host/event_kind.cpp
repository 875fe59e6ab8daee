#include "tests/simulation/host/event_kind.h"

#include <array>

namespace iscsi_blkback {
namespace {

struct KindRow {
  EventKind kind;
  std::string_view name;
  std::array<EventArgument, kMaxEventArguments> arguments = {};
};

constexpr EventArgument index_of(std::string_view name) {
  return {name, EventArgument::Kind::index, 0, 11};
}
constexpr EventArgument choice(std::string_view name, std::int64_t highest) {
  return {name, EventArgument::Kind::choice, 0, highest};
}
constexpr EventArgument count(std::int64_t highest) {
  return {"count", EventArgument::Kind::count, 1, highest};
}
constexpr EventArgument time(std::string_view name, std::int64_t highest) {
  return {name, EventArgument::Kind::time, 1, highest};
}

constexpr EventArgument kHost = choice("host", 2);  // 2: all
constexpr EventArgument kTarget = index_of("target");
constexpr EventArgument kPortal = index_of("portal");
constexpr EventArgument kGuest = index_of("guest");
constexpr EventArgument kDisk = index_of("disk");
constexpr EventArgument kOtherHost = choice("other_host", 1);
constexpr EventArgument kSameDomid = choice("same_domid", 1);
constexpr EventArgument kMs = time("ms", 6000);
// What is stuck may be so for longer than a disk takes to be taken away from its guest.
constexpr EventArgument kLongMs = time("ms", 20000);

using K = EventKind;
constexpr KindRow kRows[] = {
    {K::reset_connections, "reset_connections", {kHost, kTarget, kPortal, choice("policy", 2)}},
    {K::refuse, "refuse", {kHost, kTarget, kPortal, kMs}},
    {K::drop, "drop", {kHost, kTarget, kPortal, choice("direction", 2), kMs}},
    {K::hold, "hold", {kHost, kTarget, kPortal, choice("direction", 1), kMs}},
    {K::slow_link, "slow_link", {kHost, kTarget, kPortal, kMs, time("latency_ms", 150)}},
    {K::refuse_all, "refuse_all", {kHost, kTarget, kMs}},
    {K::lose_path, "lose_path", {kHost, kTarget, kPortal, kMs, time("hold_ms", 2500)}},
    {K::target_restart, "target_restart", {kTarget, kMs}},
    {K::close_portal, "close_portal", {kTarget, kPortal, kMs}},
    {K::hang, "hang", {kTarget, kMs}},
    {K::busy, "busy", {kTarget, count(200), choice("full", 1)}},
    {K::not_ready, "not_ready", {kTarget, kPortal, count(8), choice("code", 3)}},
    {K::stick, "stick", {kTarget, kPortal, count(8), choice("how", 2), kLongMs}},
    {K::lose_writes, "lose_writes", {kTarget, kPortal, count(6), kMs, time("refuse_ms", 8000)}},
    {K::spoil_functions, "spoil_functions", {kTarget, choice("reset", 1), choice("how", 3), kMs}},
    {K::unit_attention, "unit_attention", {kTarget, choice("code", 7)}},
    {K::controller_failover, "controller_failover", {kTarget, choice("half", 1), kMs}},
    {K::access_change, "access_change", {kTarget, choice("group", 1), choice("state", 2), kMs}},
    {K::swap_luns, "swap_luns", {kTarget, time("ms", 1000)}},
    {K::rename_lun, "rename_lun", {kTarget, choice("better", 1)}},
    {K::slow_target, "slow_target", {kTarget, kMs, time("delay_ms", 120), choice("single", 1)}},
    {K::small_window, "small_window", {kTarget, choice("window", 3), kMs}},
    {K::redirect, "redirect", {kTarget, kPortal, index_of("to"), kMs}},
    {K::kill_process, "kill_process", {kGuest}},
    {K::kill_all_processes, "kill_all_processes", {kHost}},
    {K::terminate_process, "terminate_process", {kGuest}},
    {K::stall_process, "stall_process", {kGuest, choice("thread", 2), kMs}},
    {K::clock_jumps, "clock_jumps", {kHost, kMs}},
    {K::kill_service, "kill_service", {kHost, kMs}},
    {K::xenstored_dies, "xenstored_dies", {kHost, kMs}},
    {K::store_fails, "store_fails", {kHost, count(4)}},
    {K::domctl_fails, "domctl_fails", {kHost, count(7)}},
    {K::remove_path, "remove_path", {kDisk, kPortal, kMs}},
    {K::change_policies, "change_policies", {kDisk, choice("selector", 3), choice("grouping", 4)}},
    {K::burst, "burst", {kDisk, count(32), choice("reads", 1)}},
    {K::kexec, "kexec", {kGuest, choice("abrupt", 1)}},
    {K::rival, "rival", {kDisk, time("held_ms", 500)}},
    {K::checkpoint, "checkpoint", {kGuest, kMs}},
    {K::save_restore, "save_restore", {kGuest, kOtherHost, kMs}},
    {K::migrate, "migrate", {kGuest, kOtherHost, time("ms", 1500), time("precopy_ms", 500)}},
    {K::failed_migration,
     "failed_migration",
     {kGuest, kOtherHost, kMs, time("precopy_ms", 500), choice("late", 1)}},
    {K::pause, "pause", {kGuest, kMs}},
    {K::reboot, "reboot", {kGuest, kSameDomid, kOtherHost, kMs}},
    {K::crash, "crash", {kGuest, kSameDomid, kOtherHost, kMs}},
    {K::destroy, "destroy", {kGuest, kSameDomid, kOtherHost, kMs}},
    {K::kill_and_destroy, "kill_and_destroy", {kGuest, kSameDomid, kOtherHost, kMs}},
    {K::detach, "detach", {kDisk, choice("way", 2), kMs}},
    {K::hand_over, "hand_over", {kDisk, choice("way", 2)}},
};
static_assert(std::size(kRows) == kEventKinds);

constexpr bool in_order() {
  for (std::size_t i = 0; i < kEventKinds; ++i) {
    if (static_cast<std::size_t>(kRows[i].kind) != i) {
      return false;
    }
  }
  return true;
}
static_assert(in_order());

}  // namespace

std::string_view name_of(EventKind kind) {
  return kRows[static_cast<std::size_t>(kind)].name;
}

std::optional<EventKind> event_kind_named(std::string_view name) {
  for (const KindRow& row : kRows) {
    if (row.name == name) {
      return row.kind;
    }
  }
  return std::nullopt;
}

std::span<const EventArgument> arguments_of(EventKind kind) {
  const auto& arguments = kRows[static_cast<std::size_t>(kind)].arguments;
  std::size_t used = 0;
  while (used < arguments.size() && !arguments[used].name.empty()) {
    ++used;
  }
  return std::span(arguments).first(used);
}

}  // namespace iscsi_blkback
