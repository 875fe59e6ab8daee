#include "multipath/attach/path_discovery.h"

#include <utility>

#include "multipath/attach/resolver_pool.h"

namespace iscsi_blkback {

struct PathDiscovery::Job {
  Job(PathDiscovery& of, std::uint64_t its_number, DiskConfig config, Found to_tell)
      : resolver(of),
        number(its_number),
        lookup(std::move(config)),
        found(std::move(to_tell)),
        timer(
            of.control_,
            [](void* self) noexcept {
              auto& job = *static_cast<Job*>(self);
              job.resolver.tell(job);
            },
            this) {}

  PathDiscovery& resolver;
  const std::uint64_t number;
  DiscoveryState lookup;
  Found found;
  std::size_t told_paths = 0;
  Timer timer;  // until found is told
};

PathDiscovery::PathDiscovery(Reactor& control, std::unique_ptr<AsyncPortalResolver> portal_resolver)
    : control_(control), portal_resolver_(std::move(portal_resolver)) {}

PathDiscovery::~PathDiscovery() = default;

void PathDiscovery::resolve(DiskConfig config, Found found) {
  const std::uint64_t number = next_job_++;
  jobs_.emplace(number, std::make_unique<Job>(*this, number, std::move(config), std::move(found)));
  answered(number);
}

void PathDiscovery::ask(std::uint64_t number) {
  DiscoveryState& lookup = jobs_.at(number)->lookup;
  for (const DiscoveryState::Question& question : lookup.take_questions()) {
    const Portal& portal = question.portal;
    if (question.discovery) {
      portal_resolver_->discover(portal, lookup.config().session, lookup.target_asked_for(question),
                                 [this, number, portal](Result<std::vector<Portal>> portals) {
                                   jobs_.at(number)->lookup.take_portals(portal,
                                                                         std::move(portals));
                                   answered(number);
                                 });
    } else {
      portal_resolver_->resolve(
          portal, lookup.config().target_name,
          [this, number, portal](Result<std::vector<SocketAddress>> addresses) {
            jobs_.at(number)->lookup.take_addresses(portal, std::move(addresses));
            answered(number);
          });
    }
  }
}

// A job ends with its last answer, no earlier.
void PathDiscovery::answered(std::uint64_t number) {
  ask(number);
  Job& job = *jobs_.at(number);
  if (job.lookup.complete()) {
    job.timer.start_after({});
    return;
  }
  const auto known = job.lookup.result();
  if (known && known->specification.portals.size() > job.told_paths && !job.timer.armed()) {
    job.timer.start_after(kGatherTime);
  }
}

void PathDiscovery::tell(Job& job) {
  Result<ResolvedDisk> known = job.lookup.result();
  if (!job.lookup.complete()) {
    job.told_paths = known->specification.portals.size();
    const Found found = job.found;
    found(std::move(known));
    return;
  }
  const auto ended = jobs_.extract(job.number);
  ended.mapped()->found(std::move(known));
}

std::unique_ptr<PathDiscovery> make_path_discovery(Reactor& control, PortalResolver& directory) {
  return std::make_unique<PathDiscovery>(control, make_resolver_pool(control, directory));
}

}  // namespace iscsi_blkback
