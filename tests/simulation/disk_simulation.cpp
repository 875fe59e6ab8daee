#include "tests/simulation/disk_simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/disk_simulation_impl.h"

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

// After the last fault: the longest back-off of a login, a check of a failed path, and the hold of
// a write until the target has given up its connection.
constexpr Duration kRecoveryTime = seconds(90);
constexpr std::size_t kMaxFailures = 5;

}  // namespace

SimulationResult Simulation::run() {
  began_ = reactor_.now();
  build();
  plan_faults();
  reactor_.run_for(kFaultTime);
  settle();
  finish();
  check_nothing_left();
  count_what_the_target_did();
  disks_.clear();
  sessions_.clear();
  return std::move(result_);
}

void Simulation::fail(std::string what) {
  if (result_.failures.size() < kMaxFailures) {
    const auto at = std::chrono::duration_cast<microseconds>(reactor_.now() - began_);
    result_.failures.push_back(fmt::format("at {} us: {}", at.count(), std::move(what)));
  }
}

void Simulation::count_answer(BlockOperation operation, IoStatus status) {
  ++result_.requests;
  const std::uint64_t parts[] = {
      static_cast<std::uint64_t>(reactor_.now().time_since_epoch().count()),
      static_cast<std::uint64_t>(operation), static_cast<std::uint64_t>(status)};
  for (const std::uint64_t part : parts) {
    result_.fingerprint = (result_.fingerprint ^ part) * 0x100000001b3;
  }
}

// The guest stops; everything must complete, and what the medium then holds must stay.
void Simulation::settle() {
  // Some faults end by themselves a little after the others.
  reactor_.run_for(seconds(8));
  end_faults();
  reactor_.run_for(seconds(1));
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->stop_guest();
  }
  const auto all_idle = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](const std::unique_ptr<SimulatedDisk>& disk) { return disk->idle(); });
  };
  if (!reactor_.run_until(all_idle, kRecoveryTime)) {
    for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
      const MultipathSnapshot snapshot = disk->device().snapshot();
      fail(fmt::format("{} requests are stuck: {} queued, {} held, {} in flight, {} paths up",
                       disk->open(), snapshot.queued, snapshot.held, snapshot.in_flight,
                       snapshot.paths_up()));
    }
    return;
  }
  const auto all_up = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [this](const std::unique_ptr<SimulatedDisk>& disk) {
                         return disk->device().snapshot().paths_up() == portals_;
                       });
  };
  if (!reactor_.run_until(all_up, kRecoveryTime)) {
    fail("not all paths came back");
    return;
  }
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->read_back();
  }
  if (!reactor_.run_until(all_idle, kRecoveryTime)) {
    fail("the last reads are stuck");
    return;
  }
  // Whatever old writes are still about now had their time.
  target_->release_held();
  reactor_.run_for(seconds(10));
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->check_medium();
  }
}

void Simulation::finish() {
  closing_ = true;
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->stop_guest();
    result_.hedged += disk->device().snapshot().hedged;
    disk->close();
  }
  const auto all_closed = [this] {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](const std::unique_ptr<SimulatedDisk>& disk) { return disk->closed(); });
  };
  // A read that another path has answered stays at its own until that answers or gives it up
  // (command_timeout): longer than any request of the guest.
  const bool closed = reactor_.run_until(all_closed, seconds(failed() ? 1 : 60));
  std::size_t stopped = 0;
  for (std::size_t at = 0; at < sessions_.size(); ++at) {
    Session* session = sessions_[at].get();
    result_.connection_losses += session->statistics().connection_losses;
    result_.stuck_commands += session->statistics().stuck_commands;
    if (uses_[at].stopping || uses_[at].stopped) {
      ++stopped;  // of a run that has failed
      continue;
    }
    session->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
  }
  if (!reactor_.run_until([&] { return stopped == sessions_.size() && all_closed(); },
                          seconds(60)) ||
      !closed) {
    fail("the devices or sessions did not close in time");
  }
  ISCSI_BLKBACK_ASSERT(all_closed() && stopped == sessions_.size());
}

void Simulation::check_nothing_left() {
  for (const std::unique_ptr<SimulatedDisk>& disk : disks_) {
    disk->check_nothing_left();
  }
  // Each path was up when its disk was closed.
  for (std::size_t disk = 0; disk < disks_.size() && !failed(); ++disk) {
    const std::size_t keys = target_->keys(static_cast<std::uint16_t>(disk)).size();
    if (keys != 0) {
      fail(fmt::format("{} keys of disk {} stay registered", keys, disk));
    }
  }
  reactor_.run_for(seconds(1));
  if (target_->sessions() != 0) {
    fail(fmt::format("{} sessions are left at the target", target_->sessions()));
  }
  if (foreign_lun_->counters.reads + foreign_lun_->counters.writes != 0) {
    fail("I/O reached a LUN that is not the disk's");
  }
  for (const std::string& violation : target_->violations) {
    fail("the initiator broke the protocol: " + violation);
  }
}

void Simulation::count_what_the_target_did() {
  result_.ghost_writes = target_->counters.executed_after_close;
  result_.fenced_tasks = target_->counters.terminated_tasks;
  result_.aborted_tasks = target_->counters.aborted_tasks;
  result_.lun_resets = target_->counters.resets;
  result_.preemptions = target_->counters.preemptions;
}

SimulationResult run_simulation(const SimulationOptions& options) {
  return Simulation(options).run();
}

}  // namespace iscsi_blkback
