#include "tests/support/target_sequence.h"

#include <fmt/format.h>

namespace iscsi_blkback {

std::string TargetSequence::refusal(std::uint32_t cmd_sn) const {
  return fmt::format("CmdSN {} where {} was expected and {} allowed", cmd_sn, exp_cmd_sn_,
                     max_cmd_sn_);
}

}  // namespace iscsi_blkback
