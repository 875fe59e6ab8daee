// SendTargets discovery (RFC 7143 appendix C) for who may wait: a DiscoverySession on a reactor of
// its own. Blocks: never on a reactor's thread; several at once are fine.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "base/core_dumps.h"
#include "base/result.h"
#include "base/uring_reactor.h"
#include "initiator/discovery/discovery_session.h"

namespace iscsi_blkback {

// Asks one portal for all its targets, within options.timeout. Errors, in sentences: invalid_argument (options),
// timed_out, unavailable (no connection, or it was lost), permission_denied (CHAP), protocol, unsupported (the
// target does not do SendTargets).
[[nodiscard]] Result<Discovery> discover(DiscoveryOptions options);

// DiscoveryThread: the same for a process that may not make an io_uring any more when it is asked. All
// discoveries share the one that is made in the beginning, and a thread that begins with the first.
class DiscoveryThread {
 public:
  // Errors: those of UringReactor::create().
  [[nodiscard]] static Result<std::unique_ptr<DiscoveryThread>> create();
  ~DiscoveryThread();  // nobody asks any more
  DiscoveryThread(const DiscoveryThread&) = delete;
  DiscoveryThread& operator=(const DiscoveryThread&) = delete;

  // As discover(): any thread but a reactor's.
  [[nodiscard]] Result<Discovery> discover(DiscoveryOptions options);

 private:
  struct Job;

  explicit DiscoveryThread(std::unique_ptr<UringReactor> reactor);
  [[nodiscard]] Result<void> start_thread();

  std::unique_ptr<UringReactor> reactor_;
  std::mutex mutex_;  // of thread_
  std::optional<OwnStackThread> thread_;
};

}  // namespace iscsi_blkback
