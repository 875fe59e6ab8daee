#include "initiator/discovery/discovery.h"

#include <optional>
#include <utility>

#include "base/uring_reactor.h"

namespace iscsi_blkback {

Result<Discovery> discover(DiscoveryOptions options) {
  // One connection, with a receive and a send.
  auto reactor = UringReactor::create(
      {.submission_entries = 16, .completion_entries = 64, .deferred_task_run = true});
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  std::optional<Result<Discovery>> answer;
  DiscoverySession session(**reactor, std::move(options));
  session.start(
      [](void* slot, Result<Discovery> discovery) noexcept {
        *static_cast<std::optional<Result<Discovery>>*>(slot) = std::move(discovery);
      },
      &answer);
  while (!answer) {
    (*reactor)->run_once(std::chrono::seconds(1));
  }
  return std::move(*answer);
}

}  // namespace iscsi_blkback
