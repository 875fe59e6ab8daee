#include "tests/simulation/host/simulated_guest.h"

#include <utility>

#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_host.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;

SimulatedGuest::SimulatedGuest(SimulatedWorld& world, std::size_t number)
    : world_(world),
      number_(number),
      host_(&world.host(within(world.plan().guests[number].host, SimulatedWorld::kHosts))) {
  const std::vector<PlannedDisk>& disks = world.plan().disks;
  for (std::size_t disk = 0; disk < disks.size(); ++disk) {
    if (guest_of(world.plan(), disks[disk]) == number) {
      workloads_.emplace(disk, std::make_unique<DiskWorkload>(world, disk));
    }
  }
}

SimulatedProcess* SimulatedGuest::process() {
  return domain_ == nullptr ? nullptr : host_->process_of(domain_->id());
}

void SimulatedGuest::attach(std::size_t disk) {
  SimulatedLun& lun = workload(disk).lun();
  ISCSI_BLKBACK_ASSERT(!lun.user);
  lun.user = disk;
  attached_.insert(disk);
}

void SimulatedGuest::detach(std::size_t disk) {
  SimulatedLun& lun = workload(disk).lun();
  ISCSI_BLKBACK_ASSERT(lun.user == disk);
  lun.user.reset();
  lun.disturb();  // who comes after it may have to wait
  attached_.erase(disk);
}

std::unique_ptr<SimulatedDomain> SimulatedGuest::make_domain(SimulatedHost& host,
                                                             std::optional<DomainId> wanted) {
  SimulatedDomain::Owner& owner = *this;
  DomainHandle handle{};
  handle.back() = static_cast<std::uint8_t>(number_ + 1);
  return std::make_unique<SimulatedDomain>(world_, host, wanted, handle, owner);
}

void SimulatedGuest::boot(std::unique_ptr<SimulatedDomain> domain) {
  ISCSI_BLKBACK_ASSERT(domain_ == nullptr);
  domain_ = std::move(domain);
  host_ = &domain_->host();
  process_died_ = false;
  leaving_.clear();
  for (const std::size_t disk : domain_->disks()) {
    workload(disk).expect_errors(false);
    workload(disk).expect_ring();
    domain_->boot(disk);
  }
}

std::unique_ptr<SimulatedDomain> SimulatedGuest::move_to(std::unique_ptr<SimulatedDomain> domain) {
  pause_workloads();
  std::unique_ptr<SimulatedDomain> before = std::exchange(domain_, std::move(domain));
  forget_luns();
  host_ = &domain_->host();
  process_died_ = false;
  saved_at_.reset();
  for (const std::size_t disk : domain_->disks()) {
    domain_->resume(disk);
  }
  return before;
}

void SimulatedGuest::process_dies() {
  process_died_ = true;
}

std::unique_ptr<SimulatedDomain> SimulatedGuest::save() {
  pause_workloads();
  saved_at_ = world_.reactor().now();
  return std::exchange(domain_, nullptr);
}

std::unique_ptr<SimulatedDomain> SimulatedGuest::end() {
  lose_workloads();
  return std::exchange(domain_, nullptr);
}

void SimulatedGuest::stop() {
  domain_->stop();
  pause_workloads();
}

void SimulatedGuest::run() {
  domain_->run();
}

void SimulatedGuest::disk_added(std::size_t disk) {
  set_leaving(disk, false);
  workload(disk).expect_ring();
  domain_->boot(disk);
}

void SimulatedGuest::set_leaving(std::size_t disk, bool leaving) {
  workload(disk).expect_errors(leaving);
  if (leaving) {
    leaving_.insert(disk);
  } else {
    leaving_.erase(disk);
  }
}

void SimulatedGuest::kexec(bool abruptly) {
  for (const std::size_t disk : domain_->disks()) {
    constexpr int kConnected = 4;
    const FakeFrontend* frontend = domain_->frontend(disk);
    if (!leaving_.contains(disk) && frontend != nullptr && frontend->state() == kConnected) {
      workload(disk).lose();
      domain_->restart(disk, abruptly);
    }
  }
}

void SimulatedGuest::pause_workloads() {
  for (const auto& [disk, workload] : workloads_) {
    workload->pause();
  }
}

void SimulatedGuest::forget_luns() {
  for (const auto& [disk, workload] : workloads_) {
    workload->forget_its_lun();
  }
}

void SimulatedGuest::lose_workloads() {
  for (const auto& [disk, workload] : workloads_) {
    workload->lose();
  }
}

void SimulatedGuest::on_ring_completion(SimulatedDomain& domain, std::size_t disk,
                                        const FakeFrontend::Completion& completion) {
  if (&domain == domain_.get()) {
    workload(disk).on_completion(completion);
  }
}

void SimulatedGuest::on_ring_ready(SimulatedDomain& domain, std::size_t disk) {
  if (&domain == domain_.get() && !leaving_.contains(disk)) {
    world_.count("ring connected");
    workload(disk).begin(*domain.frontend(disk), domain.ring_number(disk));
  }
}

void SimulatedGuest::on_ring_lost(SimulatedDomain& domain, std::size_t disk) {
  if (&domain == domain_.get()) {
    workload(disk).lose();
  }
}

// The driver of a disk that was closed without being taken away, since its process has died, is
// bound to it again.
void SimulatedGuest::on_disk_closed(SimulatedDomain& domain, std::size_t disk) {
  if (&domain != domain_.get()) {
    return;
  }
  workload(disk).pause();
  if (leaving_.contains(disk) || !domain.was_served(disk)) {
    return;  // a kernel that boots does not try again
  }
  world_.count("disk closed under its guest");
  bind_again_later(disk, domain.id());
}

void SimulatedGuest::bind_again_later(std::size_t disk, DomainId id) {
  const auto pause = milliseconds(world_.reactor().schedule_random().between(20, 400));
  world_.later(pause, [this, disk, id] {
    constexpr int kClosed = 6;
    if (domain_ == nullptr || domain_->id() != id || !domain_->has_disk(disk) ||
        leaving_.contains(disk) || domain_->frontend(disk) == nullptr ||
        domain_->frontend(disk)->state() != kClosed) {
      return;
    }
    if (!domain_->runs() || domain_->frontend(disk)->has_ring() || !host_->xenstored().up()) {
      bind_again_later(disk, id);
    } else {
      domain_->restart(disk, true);
    }
  });
}

}  // namespace iscsi_blkback
