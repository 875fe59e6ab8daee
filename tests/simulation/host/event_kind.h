// EventKind: what can happen in a plan of the host simulation, with the arguments that it takes. To
// add one: a line here, a line in event_kind.cpp, a weight in plan_generator.cpp, and what it does
// in the file of its area (see HostSimulation).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace iscsi_blkback {

enum class EventKind : std::uint8_t {
  // network_weather.cpp: between one host (or both) and a portal
  reset_connections,
  refuse,
  drop,
  hold,
  slow_link,
  refuse_all,
  lose_path,
  // target_weather.cpp: what a target or its array does
  target_restart,
  close_portal,
  hang,
  busy,
  not_ready,
  stick,
  lose_writes,
  spoil_functions,
  unit_attention,
  controller_failover,
  access_change,
  swap_luns,
  rename_lun,
  slow_target,
  small_window,
  redirect,
  // host_trouble.cpp: what happens to processes, and to what they ask
  kill_process,
  kill_all_processes,
  terminate_process,
  stall_process,
  clock_jumps,
  kill_service,
  xenstored_dies,
  store_fails,
  domctl_fails,
  // operator.cpp: what is asked of a disk that is in use, and what its guest does
  remove_path,
  change_policies,
  burst,
  kexec,
  rival,
  // toolstack_events.cpp: what libxl is told to do
  checkpoint,
  save_restore,
  migrate,
  failed_migration,
  pause,
  reboot,
  crash,
  destroy,
  kill_and_destroy,
  detach,
  hand_over,
};
inline constexpr std::size_t kEventKinds = static_cast<std::size_t>(EventKind::hand_over) + 1;
inline constexpr std::size_t kMaxEventArguments = 5;

struct EventArgument {
  // index: of a guest, portal ...; time: milliseconds, mostly short ones.
  enum class Kind : std::uint8_t { index, choice, count, time };

  std::string_view name = {};
  Kind kind = Kind::choice;
  std::int64_t simplest = 0;
  std::int64_t highest = 1;  // that a generator chooses; the lowest is simplest
};

[[nodiscard]] std::string_view name_of(EventKind kind);
[[nodiscard]] std::optional<EventKind> event_kind_named(std::string_view name);
[[nodiscard]] std::span<const EventArgument> arguments_of(EventKind kind);

}  // namespace iscsi_blkback
