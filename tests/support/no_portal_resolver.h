// NoPortalResolver: for tests whose portals are numeric: nothing is ever looked up. Any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "multipath/attach/path_discovery.h"

namespace iscsi_blkback {

class NoPortalResolver final : public AsyncPortalResolver {
 public:
  void resolve(const Portal& /*portal*/, const std::string& /*target_name*/,
               std::function<void(Result<std::vector<SocketAddress>>)> /*done*/) override {}
  void discover(const Portal& /*at*/, const SessionOptions& /*session*/,
                const std::string& /*target_name*/,
                std::function<void(Result<std::vector<Portal>>)> /*done*/) override {}
};

}  // namespace iscsi_blkback
