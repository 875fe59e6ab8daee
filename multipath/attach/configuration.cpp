#include "multipath/attach/configuration.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

std::string Portal::to_string() const {
  const bool numeric_ipv6 = host.find(':') != std::string::npos;
  return numeric_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Duration longest_quiesce_time(const Configuration& configuration) {
  std::chrono::milliseconds longest{};
  for_each_options(configuration, [&](const DiskOptions& options) {
    longest = std::max(longest, options.multipath.quiesce_time);
  });
  return longest;
}

}  // namespace iscsi_blkback
