// A plan: what one run of the host simulation is made of, as plain data: a world (options, targets,
// LUNs, guests and their disks) and the events that happen in it. A plan prints to text and parses
// back; running it is deterministic. Everything is a named integer, so that a plan can be shrunk
// without knowing what it means: each number has a simplest value, and any number is allowed
// anywhere (an index counts modulo what there is).
//
// Each event draws from random numbers of its own (the plan's seed and the event's id), so that
// one that is removed does not change what the others do.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tests/simulation/host/event_kind.h"

namespace iscsi_blkback {

struct PlannedWorld {
  std::int64_t run_ms = 0;      // how long events happen
  std::int64_t quiesce_ms = 0;  // quiesce_time; targets execute late commands for four fifths of it
  std::int64_t settle_ms = 0;   // fence_settle_time; 0: no fence by a command of the LUN
  std::int64_t command_timeout_ms = 0;
  std::int64_t abort_timeout_ms = 0;
  std::int64_t path_timeout_ms = 0;
  std::int64_t max_commands = 0;     // of a session
  std::int64_t polling_ms = 0;       // polling_interval
  std::int64_t settings_varied = 0;  // path policies are drawn from the seed
  std::int64_t max_queues = 0;
  std::int64_t uneven_hosts = 0;    // the second one offers one queue only
  std::int64_t max_buffers_mb = 0;  // of a disk
  std::int64_t poll_max_us = 0;     // how long the processes' reactors look before they sleep
};

struct PlannedTarget {
  std::int64_t portals = 0;
  std::int64_t groups = 0;      // portal groups: 0 one, 1 each portal its own, 2 pairs
  std::int64_t other_node = 0;  // redirects lead to a node that knows nothing of the others
  std::int64_t nodes = 0;  // 1: every other portal is of a node that knows nothing of the others
  std::int64_t silent_groups = 0;  // tags are not told
  std::int64_t window = 0;
  std::int64_t single_threaded = 0;
  std::int64_t delay_us = 0;   // of a command
  std::int64_t jitter_us = 0;  // in addition, at most
  std::int64_t linger_ms = 0;  // how much later the commands of a lost connection are executed
  std::int64_t latency_us = 0;
  std::int64_t split = 0;  // the network cuts what is sent into pieces
  std::int64_t small_pdus = 0;
  std::int64_t solicited = 0;  // initial R2T, no immediate data
  std::int64_t chap = 0;       // each LUN has a user of its own, and only that one sees it
  std::int64_t tpgs = 0;       // ALUA: 1 implicit, 2 explicit, 3 both
};

struct PlannedLun {
  std::int64_t target = 0;
  std::int64_t also_at = 0;  // 1 + the target that leads to it, too; 0: none
  std::int64_t sectors = 0;
  // 0 its own, 1 none, 2 the same as that of the LUN before it, 3 its own: a T10 vendor id, to which
  // rename_lun adds a better name
  std::int64_t identity = 0;
  std::int64_t exclusive = 0;          // exclusive_luns
  std::int64_t key = 0;                // reservation_key
  std::int64_t redirected_fences = 0;  // redirected_login_fences: nodes know each other, then
  std::int64_t vouched = 0;            // portal_group_fences, where that is true
  std::int64_t max_transfer = 0;       // blocks; 0: no limit
  std::int64_t no_path_retry_ms = 0;   // 0: queue
  std::int64_t thin = 0;               // takes discards, 1 by UNMAP, 2 by WRITE SAME alone
};

struct PlannedGuest {
  std::int64_t host = 0;
  std::int64_t ring_pages = 0;
  std::int64_t queues = 0;           // that its driver wants for a disk
  std::int64_t segments = 0;         // ... and of an indirect request; 0: its driver makes none
  std::int64_t think_us = 0;         // pause between two requests of a slot, at most
  std::int64_t busy_at_closing = 0;  // an old kernel that goes on using a disk in Closing
  std::int64_t begins_ms = 0;
};

struct PlannedDisk {
  std::int64_t guest = 0;
  std::int64_t lun = 0;
  std::int64_t other_way = 0;  // by the LUN's other target
  std::int64_t detached = 0;   // at first
  std::int64_t depth = 0;
  std::int64_t contended = 0;  // all requests go to the same few sectors
  std::int64_t writes = 0;     // of ten requests
  std::int64_t discards = 0;   // of ten of these, where the LUN takes them
};

struct PlannedEvent {
  std::int64_t at_us = 0;
  std::int64_t id = 0;
  EventKind kind = EventKind::reset_connections;
  std::array<std::int64_t, kMaxEventArguments> arguments{};  // see arguments_of()
};

// A number of a record: its name in the text, and its simplest value.
template <class Record>
struct PlanField {
  const char* name;
  std::int64_t Record::*member;
  std::int64_t simplest;
};

[[nodiscard]] std::span<const PlanField<PlannedWorld>> fields_of(const PlannedWorld&);
[[nodiscard]] std::span<const PlanField<PlannedTarget>> fields_of(const PlannedTarget&);
[[nodiscard]] std::span<const PlanField<PlannedLun>> fields_of(const PlannedLun&);
[[nodiscard]] std::span<const PlanField<PlannedGuest>> fields_of(const PlannedGuest&);
[[nodiscard]] std::span<const PlanField<PlannedDisk>> fields_of(const PlannedDisk&);

// A record with all its numbers at their simplest.
template <class Record>
[[nodiscard]] Record simplest() {
  Record record;
  for (const PlanField<Record>& field : fields_of(record)) {
    record.*field.member = field.simplest;
  }
  return record;
}

struct Plan {
  std::uint64_t seed = 1;
  PlannedWorld world = simplest<PlannedWorld>();
  std::vector<PlannedTarget> targets;  // at least one, as of everything but the events
  std::vector<PlannedLun> luns;
  std::vector<PlannedGuest> guests;
  std::vector<PlannedDisk> disks;
  std::vector<PlannedEvent> events;  // in the order of their times
};

// One line for the world and for each record and event; what is at its simplest is left out.
[[nodiscard]] std::string to_text(const Plan& plan);
// Lines that begin with '#' are comments. The error names the line.
[[nodiscard]] Result<Plan> parse_plan(std::string_view text);

}  // namespace iscsi_blkback
