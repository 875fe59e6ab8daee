// DiskResolver: looks up a disk's portals (names, discovery) without keeping the control thread
// waiting, so that one slow name server delays no other disk.
#pragma once

#include <functional>
#include <memory>

#include "base/reactor.h"
#include "base/result.h"
#include "blkback/disk_plan.h"

namespace iscsi_blkback {

class DiskResolver {
 public:
  using Done = std::function<void(Result<ResolvedDisk>)>;
  virtual ~DiskResolver() = default;
  // done: once, on the control thread, never from inside; not any more after the resolver has gone.
  virtual void resolve(DiskPlan plan, Done done) = 0;
};

// At most kMaxResolverThreads threads, started when there is work and gone when there is none. The
// directory outlives the process: a look-up that hangs in the system's resolver cannot be stopped,
// so its thread is left behind.
inline constexpr unsigned kMaxResolverThreads = 4;
[[nodiscard]] std::unique_ptr<DiskResolver> make_threaded_resolver(Reactor& control,
                                                                   PortalDirectory& directory);

}  // namespace iscsi_blkback
