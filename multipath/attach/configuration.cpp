#include "multipath/attach/configuration.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

std::string Portal::to_string() const {
  const bool numeric_ipv6 = host.find(':') != std::string::npos;
  return numeric_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Duration longest_quiesce_time(const Configuration& configuration) {
  auto longest = configuration.multipath.quiesce_time;
  for (const auto& [name, target] : configuration.targets) {
    longest = std::max(longest, target.multipath.quiesce_time);
  }
  for (const auto& [alias, lun] : configuration.luns) {
    longest = std::max(longest, lun.multipath.quiesce_time);
  }
  return longest;
}

}  // namespace iscsi_blkback
