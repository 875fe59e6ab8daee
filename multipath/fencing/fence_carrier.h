// Which path carries a command of the logical unit that fences lost writes, and what that reaches
// there: pure functions of what is known of the paths. For LunCommand, which sends it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "initiator/login/session_options.h"
#include "multipath/fencing/lun_fence.h"
#include "multipath/fencing/portal_group_trial.h"
#include "multipath/fencing/unfenced_writes.h"
#include "multipath/path/login_nexus.h"

namespace iscsi_blkback {

struct FencePath {
  std::uint32_t index = 0;
  bool up = false;         // and not held back
  bool answering = false;  // up, and not silent
  bool logged_in = false;
  bool identifying = false;
  bool busy = false;     // requests or questions of ours are at the LUN
  bool allowed = false;  // its key is registered; for a reset: nobody at the LUN refuses that
  // The nexus that has its key, which a preemption may name; nullopt: none, or not for sure.
  std::optional<LoginNexus> key;
  // Where it leads: its session's options, and of the last login the nexus, the epoch, and what
  // trials have shown of it (0: nothing).
  const SessionOptions* session = nullptr;
  LoginNexus nexus;
  std::uint64_t login_epoch = 0;
  NexusSpaces::Number space = 0;
};

struct FencePaths {
  std::vector<FencePath> paths;  // the first that will do is taken; those that are leaving, too
  bool one_target = false;  // every portal of the target is one with every other, says the operator
};

// Whether a reset by that path fences the write: it has settled at that time, and is reached. By the
// same portal of the same network, by one of the same nexus space (a trial has shown that of both
// logins), or because the operator says that it is one system.
[[nodiscard]] bool fenced_by_reset(const FencePaths& known, std::uint32_t carrier,
                                   const UnfencedWrite& write, TimePoint settled);

// A path by which a reset fences something.
[[nodiscard]] std::optional<std::uint32_t> carrier_of_reset(const FencePaths& known,
                                                            const UnfencedWrites& unfenced,
                                                            TimePoint settled);

// A path, of those that are leaving, too, whose session is down and whose lost writes have settled,
// in the nexus that has its key: all of them, for the key is gone after that. The commands of one
// that is back would be ended, too, and its login has fenced what it had lost. And a path that
// reaches them.
struct Preemption {
  std::uint32_t lost = 0;
  std::uint32_t carrier = 0;
};
[[nodiscard]] std::optional<Preemption> choose_preemption(const FencePaths& known,
                                                          const UnfencedWrites& unfenced,
                                                          TimePoint settled);

// Whether the path that was chosen may send a reset, which ends everybody's commands. activating:
// the array is being told to serve the LUN through a path.
[[nodiscard]] LunFence::Command::Ready ready_for_reset(const FencePaths& known,
                                                       std::uint32_t carrier, bool activating);

}  // namespace iscsi_blkback
