// Talks to the service and the guests' processes over their control sockets
// (blkback/control/control_protocol.h). For the status all are asked at once and none is waited for
// longer than the given time, so that one process that does not answer delays nobody. Blocks; any
// thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

struct StatusReply {
  std::optional<unsigned> domain;  // the guest's; nullopt: the service
  // One line of JSON, not yet looked at, at most kMaxControlReplyBytes. unavailable: nobody
  // listens on the socket any more; timed_out: no whole reply in time.
  Result<std::string> line;
};

// The service first, then the guests by number. Empty: there is no socket at all. The error is one
// of the folder itself: no permission to look into it, or a socket in it that may not be used.
[[nodiscard]] Result<std::vector<StatusReply>> ask_status(const std::string& run_directory,
                                                          std::chrono::milliseconds timeout);

// One request to one guest's process, without the newline; its reply as above.
[[nodiscard]] Result<std::string> ask_guest(const std::string& run_directory, unsigned domain,
                                            const std::string& request,
                                            std::chrono::milliseconds timeout);

}  // namespace iscsi_blkback
