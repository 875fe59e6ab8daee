// Settings of a disk that contradict each other, wherever they come from: the configuration file
// checks its sections with this, and a disk line with settings of its own is checked once more when
// those have been put over the file's. Pure.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "multipath/multipath_options.h"

namespace iscsi_blkback {

struct PolicyContradiction {
  std::array<std::string_view, 2> settings;  // multipath.conf's names
  std::string sentence;                      // names both
};

[[nodiscard]] std::optional<PolicyContradiction> find_contradiction(
    const MultipathOptions& options);

// What needs round-robin gets it where no selector is set, whatever the array table would choose.
void settle_selector(MultipathOptions& options);

}  // namespace iscsi_blkback
