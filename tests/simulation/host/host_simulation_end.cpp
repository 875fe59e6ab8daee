#include <fmt/format.h>

#include <algorithm>

#include "tests/simulation/host/events.h"
#include "tests/simulation/host/host_simulation_run.h"
#include "tests/simulation/host/product_configuration.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// Guests whose disks are closed under them in the end are restarted so often.
constexpr int kServiceAttempts = 3;

}  // namespace

bool HostSimulationRun::goes_well_for(Duration length) {
  return !reactor_.run_until([this] { return !result_.failures.empty(); }, length);
}

bool HostSimulationRun::must_reach(const std::function<bool()>& condition, Duration at_most,
                                   Rule rule, const std::function<std::string()>& what) {
  const auto ends = [&] { return !result_.failures.empty() || condition(); };
  if (!reactor_.run_until(ends, at_most)) {
    fail(rule, what());
  }
  return result_.failures.empty();
}

// ---- every guest is served again

bool HostSimulationRun::settle() {
  weather_is_over_ = true;
  end_network_weather(*this);
  for (std::size_t target = 0; target < storage_.targets(); ++target) {
    storage_.end_weather(target);
  }
  end_host_trouble(*this);
  if (!goes_well_for(seconds(1) + longest_stall())) {
    return false;
  }
  stop_workloads();
  const Duration recovery = longest_recovery(plan_);
  const auto idle = [this] { return toolstack_.idle(); };
  if (!must_reach(idle, recovery, Rule::hang,
                  [this] { return "the toolstack waits for ever; " + described(); })) {
    return false;
  }
  if (!must_reach(
          [this] { return no_guest_waits(); }, recovery, Rule::hang,
          [this] { return "a guest that has just been created is not served; " + described(); })) {
    return false;
  }
  // One whose disk was closed under it, or just will be, may not get over that by itself.
  for (int attempt = 0; attempt < kServiceAttempts; ++attempt) {
    if (!reactor_.run_until([this] { return !result_.failures.empty() || all_served(); },
                            seconds(4))) {
      restart_unserved_guests();
    }
    if (!must_reach([this] { return toolstack_.idle() && all_served(); }, recovery, Rule::hang,
                    [this] { return "not every guest is served; " + described(); })) {
      return false;
    }
    if (!goes_well_for(milliseconds(500)) || all_served()) {
      break;
    }
  }
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    for (const auto& [disk, workload] : guest->workloads()) {
      workload->go_on();
    }
  }
  return goes_well_for(milliseconds(500));
}

// What a process has been told to do meanwhile it does behind that.
Duration HostSimulationRun::longest_stall() const {
  TimePoint until = reactor_.now();
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    for (const SimulatedProcess* process : host->processes()) {
      until = std::max(until, process->stalled_until());
    }
  }
  return until - reactor_.now();
}

void HostSimulationRun::stop_workloads() {
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    for (const auto& [disk, workload] : guest->workloads()) {
      workload->stop();
    }
  }
}

bool HostSimulationRun::no_guest_waits() {
  return std::all_of(guests_.begin(), guests_.end(), [](const auto& guest) {
    SimulatedDomain* domain = guest->domain();
    return domain == nullptr || guest->process_died() ||
           std::all_of(guest->attached().begin(), guest->attached().end(),
                       [domain](std::size_t disk) { return domain->was_served(disk); });
  });
}

bool HostSimulationRun::all_served() {
  return std::all_of(guests_.begin(), guests_.end(),
                     [](const auto& guest) { return is_served(*guest); });
}

bool HostSimulationRun::is_served(SimulatedGuest& guest) {
  SimulatedDomain* domain = guest.domain();
  const auto& disks = guest.attached();
  if (domain == nullptr || disks.empty()) {
    return domain != nullptr;
  }
  SimulatedProcess* process = guest.process();
  return process != nullptr && process->product() != nullptr &&
         std::all_of(disks.begin(), disks.end(),
                     [domain](std::size_t disk) { return domain->usable(disk); });
}

void HostSimulationRun::restart_unserved_guests() {
  toolstack_.forget_done();
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    if (guest->domain() == nullptr) {
      (void)toolstack_.create(*guest, guest->host());
    } else if (!is_served(*guest)) {
      count("guest restarted in the end");
      (void)toolstack_.destroy(*guest, ShutdownReason::reboot, {.host = guest->host()});
    }
  }
}

// ---- the data

bool HostSimulationRun::check_data() {
  const Duration recovery = longest_recovery(plan_);
  const auto for_all = [this](const std::function<bool(DiskWorkload&)>& what) {
    return std::all_of(guests_.begin(), guests_.end(), [&](const auto& guest) {
      return std::all_of(guest->attached().begin(), guest->attached().end(),
                         [&](std::size_t disk) { return what(guest->workload(disk)); });
    });
  };
  const auto stuck = [this, &for_all] {
    std::size_t open = 0;
    (void)for_all([&open](DiskWorkload& workload) {
      open += workload.open();
      return true;
    });
    return fmt::format("{} requests are not answered; {}", open, described());
  };
  stop_workloads();
  const auto idle = [&for_all] {
    return for_all([](DiskWorkload& workload) { return workload.idle(); });
  };
  if (!must_reach(idle, recovery, Rule::hang, stuck)) {
    return false;
  }
  (void)for_all([](DiskWorkload& workload) { return workload.read_back(); });
  if (!must_reach(idle, recovery, Rule::hang, stuck) || !check_media("in the end")) {
    return false;
  }
  // Whatever old writes are still about now have their time.
  return goes_well_for(SimulatedStorage::late_limit(plan_) + seconds(1)) &&
         check_media("when nothing can come any more");
}

bool HostSimulationRun::check_media(const char* when) {
  for (std::size_t number = 0; number < storage_.luns(); ++number) {
    SimulatedLun& lun = storage_.lun(number);
    const std::uint64_t ticket = lun.oracle().read_begins();
    const std::string wrong = lun.oracle().read_ends(0, lun.lun().medium(), ticket);
    if (!wrong.empty()) {
      fail(Rule::data, fmt::format("{} LUN {}: {}", when, number, wrong));
    }
  }
  if (storage_.foreign_lun_was_used()) {
    fail(Rule::data, "requests have reached a LUN that is not the disk's");
  }
  return result_.failures.empty();
}

// ---- nothing is left

void HostSimulationRun::end_guests() {
  toolstack_.forget_done();
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    (void)toolstack_.destroy(*guest, ShutdownReason::poweroff,
                             {.host = guest->host(), .created_again = false});
  }
  const auto all_ended = [this] {
    return toolstack_.idle() && std::all_of(hosts_.begin(), hosts_.end(), [](const auto& host) {
             return host->processes().empty() && host->waiting_guests() == 0;
           });
  };
  if (!must_reach(all_ended, longest_recovery(plan_), Rule::left_over,
                  [this] { return "processes do not end; " + described(); }) ||
      !goes_well_for(seconds(1))) {
    return;
  }
  // The time of a process that died while the service did not run counts from when somebody looks.
  if (some_lun_is_blocked() && !goes_well_for(milliseconds(plan_.world.quiesce_ms))) {
    return;
  }
  check_nothing_left();
}

bool HostSimulationRun::some_lun_is_blocked() {
  bool blocked = false;
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    for (std::size_t lun = 0; lun < storage_.luns(); ++lun) {
      blocked = lun_is_blocked(host->run_directory(), plan_, lun, reactor_.now()) || blocked;
    }
  }
  return blocked;
}

void HostSimulationRun::check_nothing_left() {
  for (std::size_t target = 0; target < storage_.targets(); ++target) {
    if (const std::size_t sessions = storage_.target(target).living_sessions(); sessions != 0) {
      fail(Rule::left_over, fmt::format("{} sessions at target {}", sessions, target));
    }
  }
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    MemXen& xen = host->xen();
    if (xen.grants().mapped_pages() != 0 || xen.events().bound_ports() != 0) {
      fail(Rule::left_over,
           fmt::format("{} mapped pages and {} bound ports at host {}", xen.grants().mapped_pages(),
                       xen.events().bound_ports(), host->number()));
    }
    for (std::size_t lun = 0; lun < storage_.luns(); ++lun) {
      if (lun_is_blocked(host->run_directory(), plan_, lun, reactor_.now())) {
        fail(Rule::left_over,
             fmt::format("writes to LUN {} would still wait at host {}", lun, host->number()));
      }
    }
  }
}

// Whatever has happened: nothing of this run goes on.
void HostSimulationRun::end() {
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    for (SimulatedProcess* process : host->processes()) {
      process->kill();
    }
  }
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    (void)guest->end();
  }
  check_violations();
  count_what_targets_did();
}

void HostSimulationRun::check_violations() {
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    for (std::string& violation : host->xen().faults().take_violations()) {
      fail(Rule::ring, std::move(violation));
    }
  }
  for (std::size_t target = 0; target < storage_.targets(); ++target) {
    for (const std::string& violation : storage_.target(target).violations) {
      fail(Rule::protocol, violation);
    }
  }
}

void HostSimulationRun::count_what_targets_did() {
  for (std::size_t number = 0; number < storage_.targets(); ++number) {
    const SimTarget::Counters& counters = storage_.target(number).counters;
    count("late write executed", counters.executed_after_close);
    count("task ended by login or restart", counters.terminated_tasks);
    count("ABORT TASK", counters.aborts);
    count("PREEMPT AND ABORT", counters.preemptions);
    count("task aborted", counters.aborted_tasks);
  }
  for (std::size_t number = 0; number < storage_.luns(); ++number) {
    const SimLun::Counters& counters = storage_.lun(number).lun().counters;
    count("UNMAP", counters.unmaps);
    count("WRITE SAME", counters.write_sames);
  }
}

std::string HostSimulationRun::described() {
  toolstack_.forget_done();
  std::string text;
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    text += fmt::format("guest {} at host {}{}", guest->number(), guest->host().number(),
                        guest->busy ? ", busy" : "");
    if (SimulatedDomain* domain = guest->domain()) {
      text += fmt::format(" in domain {}{}", domain->id(), domain->runs() ? "" : ", stopped");
      for (const std::size_t disk : guest->attached()) {
        FakeFrontend* frontend = domain->frontend(disk);
        text += fmt::format(", disk {} frontend {} backend {}, {} open", disk,
                            frontend == nullptr ? 0 : frontend->state(),
                            domain->has_disk(disk)
                                ? guest->host().toolstack().backend_state(domain->node(disk))
                                : 0,
                            guest->workload(disk).open());
      }
    }
    text += "; ";
  }
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    for (SimulatedProcess* process : host->processes()) {
      text += fmt::format("process {} ", process->pid());
      if (process->product() == nullptr) {
        continue;
      }
      const auto answer = std::make_shared<std::string>("(does not answer)");
      process->run([answer](ProductProcess& product) {
        product.describe([answer](const std::string& said) { *answer = said; });
      });
      reactor_.run_for(milliseconds(50));
      text += *answer;
    }
  }
  return text;
}

}  // namespace iscsi_blkback
