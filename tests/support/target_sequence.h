// TargetSequence: the sequence numbers on a target's connection (RFC 7143 4.2.2): StatSN of what it
// sends, CmdSN of what it takes. Held by each TargetConnection; on its thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

class TargetSequence {
 public:
  explicit TargetSequence(std::uint32_t initial_stat_sn) : stat_sn_(initial_stat_sn) {}

  // A Login Request has the CmdSN of the first command.
  void begin(std::uint32_t cmd_sn) {
    exp_cmd_sn_ = cmd_sn;
    max_cmd_sn_ = cmd_sn - 1;
  }
  [[nodiscard]] std::uint32_t exp_cmd_sn() const { return exp_cmd_sn_; }
  // A command arrives; false: it is not the next, or not allowed yet, see refusal().
  [[nodiscard]] bool take(std::uint32_t cmd_sn) {
    if (cmd_sn != exp_cmd_sn_ || serial_before(max_cmd_sn_, cmd_sn)) {
      return false;
    }
    ++exp_cmd_sn_;
    ++outstanding_;
    return true;
  }
  [[nodiscard]] std::string refusal(std::uint32_t cmd_sn) const {
    return fmt::format("CmdSN {} where {} was expected and {} allowed", cmd_sn, exp_cmd_sn_,
                       max_cmd_sn_);
  }
  // It was answered, or never will be.
  void finish() { --outstanding_; }

  // For the next PDU. window: how many commands may be there at once; 0: none beyond those that
  // were allowed before.
  [[nodiscard]] TargetNumbers numbers(bool advances_stat_sn, std::uint32_t window) {
    const std::uint32_t free = window - std::min(window, outstanding_);
    const std::uint32_t max = exp_cmd_sn_ + free - 1;
    if (serial_before(max_cmd_sn_, max)) {
      max_cmd_sn_ = max;
    }
    return {.stat_sn = advances_stat_sn ? stat_sn_++ : stat_sn_,
            .exp_cmd_sn = exp_cmd_sn_,
            .max_cmd_sn = max_cmd_sn_};
  }

 private:
  std::uint32_t stat_sn_;
  std::uint32_t exp_cmd_sn_ = 0;
  std::uint32_t max_cmd_sn_ = 0;
  std::uint32_t outstanding_ = 0;
};

}  // namespace iscsi_blkback
