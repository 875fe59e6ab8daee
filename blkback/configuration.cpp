#include "blkback/configuration.h"

#include <fmt/format.h>

namespace iscsi_blkback {

std::string Portal::to_string() const {
  const bool numeric_ipv6 = host.find(':') != std::string::npos;
  return numeric_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

}  // namespace iscsi_blkback
