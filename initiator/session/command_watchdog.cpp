#include "initiator/session/command_watchdog.h"

namespace iscsi_blkback {

void CommandWatchdog::schedule(TimePoint now) {
  if (options_.command_timeout.count() != 0) {
    timer_.start_at(now + Duration{options_.command_timeout} / kScansPerTimeout);
  }
}

void CommandWatchdog::stop() {
  timer_.stop();
  closed_windows_ = 0;
}

// In the last scans that it is allowed.
bool CommandWatchdog::has_moved(const TaskSlot& slot) const {
  const std::uint32_t allowed = slot.task->stuck != 0    ? kScansPerTimeout * 8
                                : keep_alive_.waits_on() ? kScansPerTimeout * 4
                                                         : kScansPerTimeout;
  return scan_ - slot.last_progress <= allowed;
}

std::uint32_t CommandWatchdog::oldest_moving(const TaskTable& table,
                                             std::uint32_t next_cmd_sn) const {
  std::uint32_t oldest = next_cmd_sn;
  table.for_each([&](const TaskSlot& slot) {
    if (has_moved(slot) && serial_before(slot.cmd_sn, oldest)) {
      oldest = slot.cmd_sn;
    }
  });
  return oldest;
}

bool CommandWatchdog::window_is_closed(bool held_up, std::uint64_t commands_sent) {
  const bool closed = held_up && commands_sent == commands_sent_;
  commands_sent_ = commands_sent;
  closed_windows_ = closed ? closed_windows_ + 1 : 0;
  return closed_windows_ > kScansPerTimeout;
}

void CommandWatchdog::count_stuck(const TaskTable& table, std::uint64_t lun) const {
  table.for_each([&](const TaskSlot& slot) {
    if (slot.task->lun == lun && !has_moved(slot)) {
      ScsiTask::count_up(slot.task->stuck);
    }
  });
}

void CommandWatchdog::hasten(TaskTable& table, std::uint64_t lun) const {
  constexpr std::uint32_t kScansUsed = kScansPerTimeout - kScansPerTimeout / 8;
  table.for_each([&](TaskSlot& slot) {
    if (slot.task->lun == lun && scan_ - slot.last_progress < kScansUsed) {
      slot.last_progress = scan_ - kScansUsed;
    }
  });
}

void CommandWatchdog::grant_all(TaskTable& table) const {
  table.for_each([&](TaskSlot& slot) { slot.last_progress = scan_; });
}

}  // namespace iscsi_blkback
