#include "tests/simulation/host/simulated_domain.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_host.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

constexpr std::uint32_t kFirstDevice = 51712;  // xvda
constexpr std::uint64_t kMaxStepDelayUs = 800;
constexpr milliseconds kStoreRetry{20};
constexpr milliseconds kUnmapLook{5};
constexpr std::size_t kMostQueues = 8;
constexpr std::uint32_t kMostSegments = 32;

std::vector<std::unique_ptr<FakeFrontend>> make_queues(MemXen& xen,
                                                       const FakeFrontend::Options& options,
                                                       std::size_t count) {
  std::vector<std::unique_ptr<FakeFrontend>> queues;
  while (queues.size() < count) {
    queues.push_back(std::make_unique<FakeFrontend>(xen, options));
  }
  return queues;
}

}  // namespace

SimulatedDomain::SimulatedDomain(SimulatedWorld& world, SimulatedHost& host,
                                 std::optional<DomainId> wanted, const DomainHandle& handle,
                                 Owner& owner)
    : world_(world), host_(host), id_(host.create_domain(wanted, handle)), owner_(owner) {}

SimulatedDomain::~SimulatedDomain() {
  *exists_ = false;
  for (auto& [number, disk] : disks_) {
    disk.store_watch.reset();
    disk.bell_watches.clear();
  }
}

// ---- libxl

void SimulatedDomain::add_disk(std::size_t number) {
  Disk& disk = disks_[number];
  disk.domain = this;
  disk.number = number;
  const Plan& plan = world_.plan();
  disk.node.guest = id_;
  disk.node.device_id = kFirstDevice + static_cast<std::uint32_t>(number) * 16;
  disk.node.virtual_device = fmt::format("xvd{}", static_cast<char>('a' + number));
  disk.node.params = disk_params(plan, plan.disks[number]);
  host_.toolstack().add(disk.node);
}

std::vector<std::size_t> SimulatedDomain::disks() const {
  std::vector<std::size_t> numbers;
  for (const auto& [number, disk] : disks_) {
    numbers.push_back(number);
  }
  return numbers;
}

void SimulatedDomain::remove_disk(std::size_t number) {
  host_.toolstack().remove(disks_.at(number).node);
  auto entry = disks_.extract(number);
  let_go(entry.mapped());
}

// ---- the guest's kernel

SimulatedDomain::Driver::Driver(MemXen& xen, const FakeFrontend::Options& options,
                                std::size_t count)
    : queues(make_queues(xen, options, count)), frontend(*queues.front()) {
  for (std::size_t queue = 1; queue < count; ++queue) {
    frontend.add_queue(*queues[queue]);
  }
}

bool SimulatedDomain::Driver::pages_are_mapped(const MemGrants& grants) const {
  return std::any_of(queues.begin(), queues.end(), [&grants](const auto& queue) {
    const auto& references = queue->ring_references();
    return std::any_of(references.begin(), references.end(), [&](GrantReference reference) {
      return grants.in_use(queue->options().domain, reference);
    });
  });
}

void SimulatedDomain::make_driver(Disk& disk) {
  const PlannedGuest& planned =
      world_.plan().guests[guest_of(world_.plan(), world_.plan().disks[disk.number])];
  FakeFrontend::Options options;
  options.domain = id_;
  options.device_id = disk.node.device_id;
  options.ring_pages = planned.ring_pages >= 2 ? 2 : 1;
  options.indirect_segments =
      static_cast<std::uint32_t>(bounded(planned.segments, 0, kMostSegments));
  options.busy_at_closing = planned.busy_at_closing != 0;
  disk.driver =
      std::make_unique<Driver>(host_.xen(), options, bounded(planned.queues, 1, kMostQueues));
  for (const std::unique_ptr<FakeFrontend>& queue : disk.driver->queues) {
    queue->on_completion([this, number = disk.number](const FakeFrontend::Completion& completion) {
      owner_.on_ring_completion(*this, number, completion);
    });
  }
}

void SimulatedDomain::boot(std::size_t number) {
  Disk& disk = disks_.at(number);
  make_driver(disk);
  disk.driver->frontend.start();
  watch(disk);
}

void SimulatedDomain::resume(std::size_t number) {
  Disk& disk = disks_.at(number);
  make_driver(disk);
  disk.driver->frontend.start();
  disk.driver->frontend.resume();
  look_at_ring(disk);
  watch(disk);
}

void SimulatedDomain::restart(std::size_t number, bool abruptly) {
  if (!has_nodes(disks_.at(number))) {
    let_go(disks_.at(number));
  }
  FakeFrontend* at = frontend(number);
  if (at == nullptr) {
    return;
  }
  if (abruptly) {
    at->restart_abruptly();
  } else {
    at->restart();
  }
  look_at_ring(disks_.at(number));
}

FakeFrontend* SimulatedDomain::frontend(std::size_t number) {
  const auto found = disks_.find(number);
  return found == disks_.end() || found->second.driver == nullptr ? nullptr
                                                                  : &found->second.driver->frontend;
}

bool SimulatedDomain::usable(std::size_t number) {
  const FakeFrontend* at = frontend(number);
  return runs_ && at != nullptr && at->connected() && at->has_ring();
}

void SimulatedDomain::watch(Disk& disk) {
  if (!runs_ || disk.driver == nullptr) {
    return;
  }
  disk.bell_watches.clear();
  for (const std::unique_ptr<FakeFrontend>& queue : disk.driver->queues) {
    disk.bell_watches.push_back(world_.reactor().watch_readable(
        queue->event_fd(), [](void* self) noexcept { static_cast<FakeFrontend*>(self)->poll(); },
        queue.get()));
  }
  step_soon(disk);
}

// The driver's watch thread runs a moment after something has changed, once for all of it.
void SimulatedDomain::step_soon(Disk& disk) {
  disk.store_watch.reset();
  if (std::exchange(disk.step_due, true)) {
    return;
  }
  const Duration delay =
      host_.xenstored().up()
          ? Duration(microseconds(world_.reactor().schedule_random().below(kMaxStepDelayUs)))
          : Duration(kStoreRetry);
  world_.later(delay, [this, exists = exists_, number = disk.number] {
    if (*exists) {
      step(number);
    }
  });
}

void SimulatedDomain::step(std::size_t number) {
  const auto found = disks_.find(number);
  if (found == disks_.end() || !std::exchange(found->second.step_due, false) || !runs_ ||
      found->second.driver == nullptr) {
    return;
  }
  Disk& disk = found->second;
  if (!host_.xenstored().up()) {
    step_soon(disk);
    return;
  }
  if (!has_nodes(disk)) {
    let_go(disk);
    return;
  }
  const int before = disk.driver->frontend.state();
  disk.driver->frontend.step();
  const int after = disk.driver->frontend.state();
  disk.store_watch = world_.reactor().watch_readable(
      disk.driver->frontend.fd(),
      [](void* self) noexcept {
        Disk& readable = *static_cast<Disk*>(self);
        readable.domain->step_soon(readable);
      },
      &disk);
  look_at_ring(disk);
  constexpr int kClosed = 6;
  if (before != kClosed && after == kClosed) {
    owner_.on_disk_closed(*this, number);
  }
}

bool SimulatedDomain::has_nodes(const Disk& disk) {
  return host_.toolstack().store().read(disk.node.frontend_path()).has_value();
}

// The device has been taken away, and its driver goes.
void SimulatedDomain::let_go(Disk& disk) {
  disk.store_watch.reset();
  disk.bell_watches.clear();
  if (disk.driver != nullptr) {
    leaving_.push_back(std::move(disk.driver));
    disk.ring_life = 0;
    disk.was_usable = false;
    owner_.on_ring_lost(*this, disk.number);
    look_whether_gone();
  }
}

void SimulatedDomain::look_at_ring(Disk& disk) {
  const std::uint32_t life =
      disk.driver->frontend.has_ring() ? disk.driver->frontend.ring_life() : 0;
  if (life != disk.ring_life) {
    const bool lost = disk.ring_life != 0;
    disk.ring_life = life;
    disk.ring_number = world_.next_version();
    disk.was_usable = false;
    if (lost) {
      owner_.on_ring_lost(*this, disk.number);
    }
  }
  if (const bool now = usable(disk.number); now != disk.was_usable) {
    disk.was_usable = now;
    if (now) {
      disk.was_served = true;
      owner_.on_ring_ready(*this, disk.number);
    }
  }
}

// ---- CPUs and life

void SimulatedDomain::run() {
  if (destroyed_ || std::exchange(runs_, true)) {
    return;
  }
  for (auto& [number, disk] : disks_) {
    watch(disk);
    if (disk.driver != nullptr) {
      look_at_ring(disk);
    }
  }
}

void SimulatedDomain::stop() {
  runs_ = false;
  for (auto& [number, disk] : disks_) {
    disk.store_watch.reset();
    disk.bell_watches.clear();
    disk.was_usable = false;
  }
}

void SimulatedDomain::destroy() {
  if (std::exchange(destroyed_, true)) {
    return;
  }
  stop();
  host_.set_domain(id_, DomainLife::dying);
  for (auto& [number, disk] : disks_) {
    if (disk.driver != nullptr) {
      leaving_.push_back(std::move(disk.driver));
    }
  }
  disks_.clear();
  look_whether_gone();
}

void SimulatedDomain::look_whether_gone() {
  std::erase_if(leaving_, [this](const std::unique_ptr<Driver>& driver) {
    return !driver->pages_are_mapped(host_.xen().grants());
  });
  if (!leaving_.empty()) {
    world_.later(kUnmapLook, [this, exists = exists_] {
      if (*exists) {
        look_whether_gone();
      }
    });
  } else if (destroyed_ && !std::exchange(gone_, true)) {
    host_.set_domain(id_, DomainLife::gone);
  }
}

}  // namespace iscsi_blkback
