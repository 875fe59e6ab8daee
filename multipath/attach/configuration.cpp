#include "multipath/attach/configuration.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {

std::string Portal::to_string() const {
  const bool numeric_ipv6 = host.find(':') != std::string::npos;
  return numeric_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::vector<std::string> target_names(const ConfiguredLun& lun) {
  std::vector<std::string> names{lun.target_name};
  names.insert(names.end(), lun.other_target_names.begin(), lun.other_target_names.end());
  for (const Portal& portal : lun.portals) {
    if (!portal.target_name.empty()) {
      names.push_back(portal.target_name);
    }
  }
  return names;
}

bool names_target(const ConfiguredLun& lun, const std::string& name) {
  const std::vector<std::string> names = target_names(lun);
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& other) { return same_iscsi_name(other, name); });
}

bool same_lun(const ConfiguredLun& one, const ConfiguredLun& other) {
  const std::vector<std::string> names = target_names(one);
  return one.lun == other.lun &&
         std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return names_target(other, name); });
}

Duration longest_quiesce_time(const Configuration& configuration) {
  std::chrono::milliseconds longest{};
  for_each_options(configuration, [&](const DiskOptions& options) {
    longest = std::max(longest, options.multipath.quiesce_time);
  });
  return longest;
}

}  // namespace iscsi_blkback
