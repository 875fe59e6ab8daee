// Whether the host (or driver domain) had ended in order before it started: then nothing that its
// disks had sent can be executed any more, and they are served at once. Else they wait until the
// host has run for quiesce_time, as /run, where disks tell each other of their writes, is empty.
//
// An end in order leaves a mark in a folder that outlives the host. Whoever starts first takes it
// away before a disk is served, and notes for the others of this run of the host, in a folder in
// memory, that there was one. No mark is what a host has after a reset, and one whose folders
// outlive nothing. Control thread; waits for the disk of the folder.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"

namespace iscsi_blkback {

struct HostEndFolders {
  std::string run;    // see Configuration::run_directory
  std::string state;  // see Configuration::state_directory
};

// To be called before a disk is served, by each process. boot_id: unlike that of any other run of
// the host.
[[nodiscard]] bool host_had_ended_in_order(const HostEndFolders& folders,
                                           const std::string& boot_id);
struct HostRun {
  bool followed_an_end_in_order = false;  // host_had_ended_in_order()
  Duration uptime{};
};

// When nothing is left of what the disks have sent, and no process serves any. There is no mark
// where something may be left of what was sent before a reset, quiesce_time before this run at
// most: a service that is started again, or the host, would take the reset for an end in order. Nor
// is there one where a guest's process has started in the meantime, which has looked for it
// already.
void mark_end_in_order(const HostEndFolders& folders, const HostRun& run, Duration quiesce_time);

[[nodiscard]] std::string host_boot_id();
// Since the host was started, including the time that it was asleep.
[[nodiscard]] Duration host_uptime();
// Of the host in the reactor's time; nullopt: what was before is over.
[[nodiscard]] std::optional<TimePoint> disorderly_host_start(const HostEndFolders& folders,
                                                             TimePoint now);

}  // namespace iscsi_blkback
