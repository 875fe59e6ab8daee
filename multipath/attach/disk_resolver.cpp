#include "multipath/attach/disk_resolver.h"

#include <utility>

#include "multipath/attach/threaded_inquirer.h"

namespace iscsi_blkback {

struct DiskResolver::Job {
  Job(DiskResolver& of, std::uint64_t its_number, DiskPlan plan, Found to_tell)
      : resolver(of),
        number(its_number),
        lookup(std::move(plan)),
        found(std::move(to_tell)),
        timer(
            of.control_,
            [](void* self) noexcept {
              auto& job = *static_cast<Job*>(self);
              job.resolver.tell(job);
            },
            this) {}

  DiskResolver& resolver;
  const std::uint64_t number;
  DiskLookup lookup;
  Found found;
  std::size_t told_paths = 0;
  Timer timer;  // until found is told
};

DiskResolver::DiskResolver(Reactor& control, std::unique_ptr<PortalInquirer> inquirer)
    : control_(control), inquirer_(std::move(inquirer)) {}

DiskResolver::~DiskResolver() = default;

void DiskResolver::resolve(DiskPlan plan, Found found) {
  const std::uint64_t number = next_job_++;
  jobs_.emplace(number, std::make_unique<Job>(*this, number, std::move(plan), std::move(found)));
  answered(number);
}

void DiskResolver::ask(std::uint64_t number) {
  DiskLookup& lookup = jobs_.at(number)->lookup;
  for (const DiskLookup::Question& question : lookup.take_questions()) {
    const Portal& portal = question.portal;
    if (question.discovery) {
      inquirer_->discover(portal, lookup.plan().session, lookup.target_asked_for(question),
                          [this, number, portal](Result<std::vector<Portal>> portals) {
                            jobs_.at(number)->lookup.take_portals(portal, std::move(portals));
                            answered(number);
                          });
    } else {
      inquirer_->resolve(portal, lookup.plan().target_name,
                         [this, number, portal](Result<std::vector<SocketAddress>> addresses) {
                           jobs_.at(number)->lookup.take_addresses(portal, std::move(addresses));
                           answered(number);
                         });
    }
  }
}

// A job ends with its last answer, no earlier.
void DiskResolver::answered(std::uint64_t number) {
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

void DiskResolver::tell(Job& job) {
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

std::unique_ptr<DiskResolver> make_threaded_resolver(Reactor& control, PortalDirectory& directory) {
  return std::make_unique<DiskResolver>(control, make_threaded_inquirer(control, directory));
}

}  // namespace iscsi_blkback
