// CommandWatchdog: which commands at the target of a session are stuck on a live connection, and
// whether the target keeps its command window closed. There is no timer and no clock reading per
// command: all commands are scanned kScansPerTimeout times in command_timeout, scans are numbered,
// and a command's slot has the number of the scan before which it was sent or last moved data.
// It scans only while commands are outstanding. What becomes of a stuck command is its Session's
// affair, which owns it. Reactor thread.
//
// A command that waits behind an older one which is being served is not stuck: the target may well
// take them in order. One that was given up before gets eight times as long, because one that needs
// a little longer than command_timeout would never end; and all of a connection that is silent and
// waited for all the same (see silence_patience.h) get four times as long, because an ABORT TASK
// would not be answered either.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/reactor.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/pdu.h"
#include "initiator/session/keep_alive.h"
#include "initiator/session/task_table.h"

namespace iscsi_blkback {

class CommandWatchdog {
 public:
  static constexpr std::uint32_t kScansPerTimeout = 16;

  using Due = void (*)(void* owner) noexcept;
  // due: a scan is due; begin_scan() tells which commands are stuck, schedule() goes on. What is
  // referred to outlives it.
  CommandWatchdog(Reactor& reactor, const SessionOptions& options, const KeepAlive& keep_alive,
                  Due due, void* owner)
      : options_(options), keep_alive_(keep_alive), timer_(reactor, due, owner) {}

  // The first command has been submitted while none was outstanding.
  void on_busy(TimePoint now) {
    if (!timer_.armed()) {
      schedule(now);
    }
  }
  void schedule(TimePoint now);  // command_timeout 0: never
  // The connection is gone, or nothing of it is to be watched any more.
  void stop();
  // For TaskSlot::last_progress of a command that is sent or moves data now.
  [[nodiscard]] std::uint32_t scan() const { return scan_; }

  void begin_scan() { ++scan_; }
  // The CmdSN of the oldest command that has moved in its time; next_cmd_sn where none has.
  [[nodiscard]] std::uint32_t oldest_moving(const TaskTable& table,
                                            std::uint32_t next_cmd_sn) const;
  [[nodiscard]] bool stuck(const TaskSlot& slot, std::uint32_t oldest_moving) const {
    return slot.task != nullptr && !has_moved(slot) && serial_before(slot.cmd_sn, oldest_moving);
  }
  // Once in a scan with commands outstanding. held_up: commands wait, none at the target moves, and
  // nothing else will end them. Whether that, with not a command sent, has lasted command_timeout.
  [[nodiscard]] bool window_is_closed(bool held_up, std::uint64_t commands_sent);
  void nothing_outstanding() { closed_windows_ = 0; }

  // Counts in those of the LUN's tasks that are stuck that they were.
  void count_stuck(const TaskTable& table, std::uint64_t lun) const;
  // The LUN's commands are stuck if they do not move in an eighth of command_timeout.
  void hasten(TaskTable& table, std::uint64_t lun) const;
  // All commands have all of their time from now on.
  void grant_all(TaskTable& table) const;

 private:
  [[nodiscard]] bool has_moved(const TaskSlot& slot) const;

  const SessionOptions& options_;
  const KeepAlive& keep_alive_;
  std::uint32_t scan_ = 0;
  std::uint64_t commands_sent_ = 0;   // before the last scan
  std::uint32_t closed_windows_ = 0;  // scans in a row at a window that lets nothing through
  Timer timer_;
};

}  // namespace iscsi_blkback
