// PathDiscovery: looks up disks' portals (names, discovery) without keeping the control thread
// waiting. Everything that is to be asked for a disk is asked at once, and the disk goes on with
// the first answers: neither a portal that is dead nor another disk's look-ups delay it. Control
// thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/reactor.h"
#include "base/result.h"
#include "multipath/attach/discovery_state.h"

namespace iscsi_blkback {

// PortalResolver for a reactor: done comes once for each question, on the reactor, never from
// inside; not any more after this has gone.
class AsyncPortalResolver {
 public:
  virtual ~AsyncPortalResolver() = default;
  // target_name: for whom it is asked, here and below.
  virtual void resolve(const Portal& portal, const std::string& target_name,
                       std::function<void(Result<std::vector<SocketAddress>>)> done) = 0;
  virtual void discover(const Portal& at, const SessionOptions& session,
                        const std::string& target_name,
                        std::function<void(Result<std::vector<Portal>>)> done) = 0;
};

class PathDiscovery {
 public:
  // Comes when portals can be used, and again with all of them whenever there are more; last with
  // what is complete, or with an error because not one can be used. On the reactor, never from
  // inside; not any more after the resolver has gone.
  using Found = std::function<void(Result<ResolvedDisk>)>;

  // What answers soon after the first answer is handed over together with it: the paths then have
  // the order of the disk line, and one that leads elsewhere is noticed before the disk is used.
  static constexpr std::chrono::milliseconds kGatherTime{100};

  PathDiscovery(Reactor& control, std::unique_ptr<AsyncPortalResolver> portal_resolver);
  ~PathDiscovery();
  PathDiscovery(const PathDiscovery&) = delete;
  PathDiscovery& operator=(const PathDiscovery&) = delete;

  void resolve(DiskConfig config, Found found);

 private:
  struct Job;
  void ask(std::uint64_t number);
  void answered(std::uint64_t number);
  void tell(Job& job);

  Reactor& control_;
  std::unique_ptr<AsyncPortalResolver> portal_resolver_;
  std::map<std::uint64_t, std::unique_ptr<Job>> jobs_;
  std::uint64_t next_job_ = 1;
};

// See ResolverPool. The directory outlives the process.
[[nodiscard]] std::unique_ptr<PathDiscovery> make_path_discovery(Reactor& control,
                                                                 PortalResolver& directory);

}  // namespace iscsi_blkback
