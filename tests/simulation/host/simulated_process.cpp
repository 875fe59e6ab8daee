#include "tests/simulation/host/simulated_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace iscsi_blkback {
namespace {

// What killed processes leave in memory; reachable, so that it is no leak.
std::vector<std::shared_ptr<void>>& graveyard() {
  static auto& graves = *new std::vector<std::shared_ptr<void>>;
  return graves;
}

template <class Object>
void bury(std::unique_ptr<Object> object) {
  graveyard().push_back(std::shared_ptr<Object>(std::move(object)));
}

}  // namespace

SimulatedProcess::SimulatedProcess(const Environment& environment, DomainId guest, pid_t pid)
    : environment_(environment),
      guest_(guest),
      pid_(pid),
      kernel_(std::make_unique<KernelProcess>(
          fmt::format("host {} guest {}", environment.computer, guest), pid)) {}

SimulatedProcess::~SimulatedProcess() {
  ISCSI_BLKBACK_ASSERT(product_ == nullptr);
  *exists_ = false;
}

void SimulatedProcess::start() {
  control_ = std::make_unique<SimReactor>(environment_.main, kernel_.get());
  io_ = std::make_unique<SimReactor>(environment_.main, kernel_.get());
  control_->set_computer(environment_.computer);
  io_->set_computer(environment_.computer);
  io_->set_longest_look(std::chrono::microseconds(environment_.configuration.poll_max_us));
  bool started = false;
  {
    const KernelProcess::Running running(*kernel_);
    grants_ = environment_.xen.grants().open(0);
    channels_ = environment_.xen.events().open(0);
    domains_ = environment_.xenstored.open_domain_info();
    product_ = std::make_unique<ProductProcess>(ProductProcess::Environment{
        *control_, *io_, *grants_, *channels_, *domains_,
        [this] { return environment_.xenstored.connect(this); }, environment_.configuration, guest_,
        environment_.breakage, [this] { soon({}, &SimulatedProcess::end_cleanly); }});
    started = product_->start().has_value();
  }
  if (!started) {
    end(false);
  }
}

void SimulatedProcess::soon(Duration delay, void (SimulatedProcess::*what)()) {
  environment_.main.schedule(delay, [this, exists = exists_, what] {
    if (*exists && product_ != nullptr) {
      (this->*what)();
    }
  });
}

void SimulatedProcess::end(bool clean) {
  {
    const KernelProcess::Running running(*kernel_);
    product_.reset();
    domains_.reset();
    channels_.reset();
    grants_.reset();
  }
  io_.reset();
  control_.reset();
  kernel_->release_all();
  environment_.owner.on_process_ended(*this, clean);
}

void SimulatedProcess::kill() {
  if (product_ == nullptr) {
    return;
  }
  for (SimReactor* thread : {io_.get(), control_.get()}) {
    environment_.main.network().client_died(*thread);
    thread->halt();
  }
  environment_.xen.grants().process_died(*grants_);
  environment_.xen.events().process_died(*channels_);
  environment_.xenstored.owner_died(this);
  kernel_->release_all();
  bury(std::move(product_));
  bury(std::move(domains_));
  bury(std::move(io_));
  bury(std::move(control_));
  bury(std::exchange(kernel_, std::make_unique<KernelProcess>("dead", pid_)));
  channels_.reset();
  grants_.reset();
  environment_.owner.on_process_ended(*this, false);
}

void SimulatedProcess::terminate() {
  if (product_ != nullptr) {
    control_->post([this] { product_->terminate(); });
    soon(ProductProcess::kTerminateTimeout, &SimulatedProcess::give_up);
  }
}

void SimulatedProcess::stall(Threads threads, Duration length) {
  if (product_ == nullptr) {
    return;
  }
  const TimePoint until = environment_.main.now() + length;
  stalled_until_ = std::max(stalled_until_, until);
  if (threads != Threads::io) {
    control_->stand_still_until(until);
  }
  if (threads != Threads::control) {
    io_->stand_still_until(until);
  }
}

void SimulatedProcess::run(const std::function<void(ProductProcess&)>& what) {
  if (product_ != nullptr) {
    control_->post([this, what] { what(*product_); });
  }
}

}  // namespace iscsi_blkback
