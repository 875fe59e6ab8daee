// SessionNumbers: the serial numbers of a session's connection, shared by who sends and who
// receives (RFC 7143 4.2.2): CmdSN and the target's command window, StatSN and what is acknowledged
// of it. Its Session owns it; reactor thread.
#pragma once

#include <cstdint>

#include "initiator/pdu/pdu.h"
#include "initiator/session/status_sequence.h"

namespace iscsi_blkback {

struct SessionNumbers {
  std::uint32_t cmd_sn = 0;  // of the next command
  std::uint32_t max_cmd_sn = 0;
  StatusSequence statuses;

  // With the numbers of the login's last answer.
  void begin(const TargetNumbers& numbers) {
    statuses.reset(numbers.stat_sn + 1);
    // One command finds out where they make no sense.
    max_cmd_sn = tells_a_window(numbers) ? numbers.max_cmd_sn : cmd_sn;
  }
  [[nodiscard]] bool window_open() const { return !serial_before(max_cmd_sn, cmd_sn); }
  // Returns whether the window has grown. It never shrinks.
  bool take_window(const TargetNumbers& numbers) {
    const bool grows = tells_a_window(numbers) && serial_before(max_cmd_sn, numbers.max_cmd_sn);
    if (grows) {
      max_cmd_sn = numbers.max_cmd_sn;
    }
    return grows;
  }
  [[nodiscard]] std::uint32_t exp_stat_sn() const { return statuses.expected(); }

 private:
  // 4.2.2.1: a MaxCmdSN below ExpCmdSN-1 is to be ignored.
  [[nodiscard]] static bool tells_a_window(const TargetNumbers& numbers) {
    return !serial_before(numbers.max_cmd_sn + 1, numbers.exp_cmd_sn);
  }
};

}  // namespace iscsi_blkback
