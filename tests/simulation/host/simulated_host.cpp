#include "tests/simulation/host/simulated_host.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/host/product_configuration.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kServiceRestart{1};  // of a service that cannot start
// A process looks for a new xenstored every second (StoreConnection).
constexpr seconds kToolstackWaits{3};

}  // namespace

SimulatedHost::SimulatedHost(SimulatedWorld& world, std::size_t number)
    : world_(world),
      number_(number),
      configuration_(
          make_configuration(world.plan(), number, run_directory_.path(), world.breakage())),
      next_domain_(static_cast<DomainId>(number * 100 + 1)),
      next_pid_(static_cast<pid_t>(number * 1000 + 1000)) {}

SimulatedHost::~SimulatedHost() {
  stop_service();
}

// In memory, as /run is: what is on a disk may have to wait for it.
std::string SimulatedHost::run_parent() {
  constexpr const char* kInMemory = "/dev/shm";
  return ::access(kInMemory, W_OK) == 0 ? kInMemory : "/tmp";
}

// ---- the service

void SimulatedHost::start_service() {
  ISCSI_BLKBACK_ASSERT(supervisor_ == nullptr);
  ++service_life_;
  service_kernel_ =
      std::make_unique<KernelProcess>(fmt::format("host {} service", number_), next_pid_++);
  service_reactor_ = std::make_unique<SimReactor>(world_.reactor(), service_kernel_.get());
  bool started = false;
  {
    const KernelProcess::Running running(*service_kernel_);
    GuestLauncher& launcher = *this;
    supervisor_ = std::make_unique<GuestSupervisor>(
        *service_reactor_, [this] { return xenstored_.connect(this); }, launcher, 0);
    started = supervisor_->start().has_value();
  }
  if (!started) {
    kill_service(kServiceRestart);
  }
}

// Its own objects can be destroyed: it has nothing that waits for anybody.
void SimulatedHost::stop_service() {
  if (supervisor_ == nullptr) {
    return;
  }
  {
    const KernelProcess::Running running(*service_kernel_);
    supervisor_.reset();
  }
  service_reactor_.reset();
  service_kernel_->release_all();
}

void SimulatedHost::kill_service(Duration until_started) {
  if (supervisor_ == nullptr) {
    return;
  }
  stop_service();
  world_.later(until_started, [this] {
    if (supervisor_ == nullptr) {
      start_service();
    }
  });
}

Result<pid_t> SimulatedHost::start(DomainId guest) {
  SimulatedProcess::Environment environment{
      .main = world_.reactor(),
      .computer = computer(),
      .xen = xen_,
      .xenstored = xenstored_,
      .configuration = configuration_,
      .breakage = world_.breakage(),
      .owner = *this,
  };
  const pid_t pid = next_pid_++;
  first_process_ = first_process_ == 0 ? pid : first_process_;
  processes_.push_back(std::make_unique<SimulatedProcess>(environment, guest, pid));
  world_.count("process started");
  world_.later(microseconds(world_.reactor().schedule_random().between(500, 20000)),
               [this, process = processes_.back().get()] {
                 const auto found =
                     std::find_if(processes_.begin(), processes_.end(),
                                  [process](const auto& one) { return one.get() == process; });
                 const bool stays_away = world_.breakage() == Breakage::processes_stay_away &&
                                         process->pid() != first_process_;
                 if (found != processes_.end() && !stays_away) {
                   process->start();
                 }
               });
  return pid;
}

Result<std::optional<pid_t>> SimulatedHost::adopt(DomainId guest) {
  const SimulatedProcess* process = process_of(guest);
  return process != nullptr ? std::optional(process->pid()) : std::nullopt;
}

void SimulatedHost::on_process_ended(SimulatedProcess& process, bool clean) {
  const DomainId guest = process.guest();
  const pid_t pid = process.pid();
  const auto found = std::find_if(processes_.begin(), processes_.end(),
                                  [&](const auto& one) { return one.get() == &process; });
  // Not now: it may be on the stack.
  world_.later({}, [gone = std::shared_ptr<SimulatedProcess>(std::move(*found))] {});
  processes_.erase(found);
  if (supervisor_ == nullptr) {
    return;
  }
  const Duration until_heard = microseconds(world_.reactor().schedule_random().below(2000));
  world_.later(until_heard, [this, life = service_life_, guest, pid, clean] {
    if (supervisor_ != nullptr && life == service_life_) {
      service_reactor_->post([this, guest, pid, clean] {
        note_death(run_directory(), pid, service_reactor_->now());
        supervisor_->on_exit(guest, clean);
      });
    }
  });
}

SimulatedProcess* SimulatedHost::process_of(DomainId guest) {
  const auto found =
      std::find_if(processes_.begin(), processes_.end(),
                   [guest](const auto& process) { return process->guest() == guest; });
  return found == processes_.end() ? nullptr : found->get();
}

SimulatedProcess* SimulatedHost::process_of_thread(const SimReactor& thread) {
  const auto found =
      std::find_if(processes_.begin(), processes_.end(),
                   [&thread](const auto& process) { return process->is_thread(thread); });
  return found == processes_.end() ? nullptr : found->get();
}

std::vector<SimulatedProcess*> SimulatedHost::processes() {
  std::vector<SimulatedProcess*> all;
  for (const auto& process : processes_) {
    all.push_back(process.get());
  }
  return all;
}

std::size_t SimulatedHost::waiting_guests() const {
  if (supervisor_ == nullptr) {
    return 0;
  }
  const std::vector<ServedGuest> guests = supervisor_->guests();
  return static_cast<std::size_t>(std::count_if(
      guests.begin(), guests.end(), [](const ServedGuest& guest) { return guest.pid == 0; }));
}

// ---- xenstored

void SimulatedHost::stop_xenstored(Duration length) {
  if (!xenstored_.up()) {
    return;
  }
  xenstored_.die();
  world_.later(length, [this] { start_xenstored(); });
}

void SimulatedHost::start_xenstored() {
  if (!xenstored_.up()) {
    xenstored_.start();
    xenstored_up_since_ = world_.reactor().now();
  }
}

bool SimulatedHost::toolstack_works() const {
  return xenstored_.up() && world_.reactor().now() - xenstored_up_since_ >= kToolstackWaits;
}

// ---- domains

DomainId SimulatedHost::create_domain(std::optional<DomainId> wanted, const DomainHandle& handle) {
  const DomainId domain = wanted.value_or(next_domain_);
  ISCSI_BLKBACK_ASSERT(!domain_exists(domain));
  next_domain_ = static_cast<DomainId>(next_domain_ + (wanted ? 0 : 1));
  domains_[domain].handle = handle;
  set_domain(domain, DomainLife::running);
  return domain;
}

void SimulatedHost::set_domain(DomainId domain, DomainLife life, ShutdownReason reason) {
  const DomainStatus before = domains_[domain];
  // The hypervisor goes on telling why a domain had shut down.
  if (life == DomainLife::dying && before.life == DomainLife::shut_down) {
    reason = before.shutdown_reason;
  }
  const DomainStatus status{life, reason, before.handle};
  if (life == DomainLife::gone) {
    domains_.erase(domain);
  } else {
    domains_[domain] = status;
  }
  xen_.set_domain(domain, status);
  if (life == DomainLife::dying) {
    xen_.store().fire_special("@releaseDomain");  // as xenstored does then, too
  }
}

}  // namespace iscsi_blkback
