#include "tests/simulation/host/host_simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/log.h"
#include "tests/simulation/host/events.h"
#include "tests/simulation/host/host_simulation_run.h"
#include "tests/simulation/host/product_configuration.h"

namespace iscsi_blkback {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// The product's log: what it says of fences is counted.
class SimulationLog final : public LogSink {
 public:
  SimulationLog(HostSimulationRun& run, bool prints) : run_(run), prints_(prints) {}

  void write(LogLevel /*level*/, std::string_view line) noexcept override {
    if (const std::string_view fence = fence_in_log(line); !fence.empty()) {
      run_.count(fence);
    }
    if (prints_) {
      const KernelProcess* process = KernelProcess::running();
      std::fprintf(stderr, "%10lld %s: %.*s\n", static_cast<long long>(run_.now_us()),
                   process == nullptr ? "-" : process->name().c_str(),
                   static_cast<int>(line.size()), line.data());
    }
  }

 private:
  HostSimulationRun& run_;
  const bool prints_;
};

}  // namespace

HostSimulationRun::HostSimulationRun(const Plan& plan, const HostSimulationOptions& options)
    : plan_(plan),
      options_(options),
      reactor_(plan.seed),
      began_(reactor_.now()),
      wire_(reactor_, SimulatedStorage::late_limit(plan), *this),
      storage_(*this),
      toolstack_(*this) {
  reactor_.trust_ready_fds();
  reactor_.network().set_tap(&wire_);
  for (std::size_t number = 0; number < kHosts; ++number) {
    hosts_.push_back(std::make_unique<SimulatedHost>(*this, number));
  }
  for (std::size_t number = 0; number < plan.guests.size(); ++number) {
    guests_.push_back(std::make_unique<SimulatedGuest>(*this, number));
  }
}

HostSimulationRun::~HostSimulationRun() {
  reactor_.network().set_tap(nullptr);
}

HostSimulationResult HostSimulationRun::run() {
  const std::unique_ptr<LogSink> before =
      set_log_sink(std::make_unique<SimulationLog>(*this, options_.prints_log));
  for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
    host->start_service();
  }
  begin_guests();
  plan_events();
  break_world();
  if (goes_well_for(milliseconds(plan_.world.run_ms)) && settle() && check_data()) {
    end_guests();
  }
  end();
  (void)set_log_sink(nullptr);
  return std::move(result_);
}

// ---- SimulatedWorld

void HostSimulationRun::fail(Rule rule, std::string what) {
  if (options_.ignored.contains(rule)) {
    count("failure ignored");
    return;
  }
  if (result_.failures.size() < kMaxFailures) {
    if (options_.prints_log) {
      std::fprintf(stderr, "%10lld FAILURE %s: %s\n", static_cast<long long>(now_us()),
                   std::string(to_string(rule)).c_str(), what.c_str());
    }
    result_.failures.push_back({rule, now_us(), std::move(what)});
  }
}

void HostSimulationRun::count(std::string_view what, std::uint64_t times) {
  const auto found = result_.happened.find(what);
  if (found == result_.happened.end()) {
    result_.happened.emplace(what, times);
  } else {
    found->second += times;
  }
}

void HostSimulationRun::note_answer(std::uint64_t what) {
  for (const std::uint64_t part :
       {static_cast<std::uint64_t>(reactor_.now().time_since_epoch().count()), what}) {
    result_.fingerprint = (result_.fingerprint ^ part) * 0x100000001b3;
  }
}

std::int64_t HostSimulationRun::now_us() const {
  return std::chrono::duration_cast<microseconds>(reactor_.now() - began_).count();
}

void HostSimulationRun::break_world() {
  if (options_.breakage == Breakage::target_takes_less) {
    later(seconds(1), [this] { storage_.target(0).options().max_recv_data_segment_length = 512; });
  } else if (options_.breakage == Breakage::run_crashes) {
    later(seconds(1), [] { std::abort(); });
  } else if (options_.breakage == Breakage::discards_are_skipped) {
    for (std::size_t target = 0; target < storage_.targets(); ++target) {
      const auto is_discard = [](const SimCommand& command) {
        return is_write(command) && !transfer_of(command.cdb);
      };
      storage_.target(target).inject(
          {.matches = is_discard, .count = 0, .data = std::vector<std::byte>()});
    }
  } else if (options_.breakage == Breakage::lun_is_held) {
    const std::size_t last = storage_.luns() - 1;
    for (const std::unique_ptr<SimulatedHost>& host : hosts_) {
      held_luns_.push_back(block_lun(host->run_directory(), plan_, last));
    }
    later(seconds(6), [this] { held_luns_.clear(); });
  }
}

// ---- the plan

void HostSimulationRun::begin_guests() {
  for (std::size_t disk = 0; disk < plan_.disks.size(); ++disk) {
    SimulatedGuest& guest = *guests_[guest_of(plan_, plan_.disks[disk])];
    if (plan_.disks[disk].detached == 0 && !guest.workload(disk).lun().user) {
      guest.attach(disk);
    }
  }
  for (const std::unique_ptr<SimulatedGuest>& guest : guests_) {
    later(milliseconds(plan_.guests[guest->number()].begins_ms), [this, &guest = *guest] {
      if (guest.domain() == nullptr && !guest.busy) {
        (void)toolstack_.create(guest, guest.host());
      }
    });
  }
}

void HostSimulationRun::plan_events() {
  for (const PlannedEvent& event : plan_.events) {
    later(microseconds(event.at_us), [this, &event] {
      if (!weather_is_over_) {
        happen(event);
      }
    });
  }
}

void HostSimulationRun::happen(const PlannedEvent& event) {
  SimRandom random(plan_.seed * 0x100003 + static_cast<std::uint64_t>(event.id) * 0x9e3779b9);
  EventOutcome outcome = network_weather(*this, event, random);
  if (!outcome) {
    outcome = target_weather(*this, event, random);
  }
  if (!outcome) {
    outcome = host_trouble(*this, event, random);
  }
  if (!outcome) {
    outcome = operators_doing(*this, event);
  }
  if (!outcome) {
    outcome = toolstack_event(*this, toolstack_, event);
  }
  ISCSI_BLKBACK_ASSERT(outcome.has_value());
  if (options_.prints_log) {
    std::fprintf(stderr, "%10lld EVENT #%lld %s%s\n", static_cast<long long>(now_us()),
                 static_cast<long long>(event.id), std::string(name_of(event.kind)).c_str(),
                 *outcome ? "" : " (nothing to do)");
  }
  if (*outcome) {
    count(fmt::format("event {}", name_of(event.kind)));
  }
}

// ---- what a failure is found by while it happens

std::size_t HostSimulationRun::target_at(const std::string& link) const {
  return storage_.target_at(link);
}

void HostSimulationRun::on_write_sent(const SimReactor& sender, std::size_t target,
                                      std::uint16_t lun) {
  count("write sent");
  SimulatedProcess* process = hosts_[sender.computer()]->process_of_thread(sender);
  if (process == nullptr || process->product() == nullptr) {
    return;
  }
  const TimePoint now = reactor_.now();
  ProductProcess& product = *process->product();
  product.note_write(target_name(target), lun);
  if (const auto since = product.suspended_since(); since && now > *since) {
    fail(Rule::sent_after_suspend,
         fmt::format("a write to LUN {} is sent {} us after the process of domain {} has heard of "
                     "the suspend",
                     lun - 1, std::chrono::duration_cast<microseconds>(now - *since).count(),
                     process->guest()));
  }
  if (const auto since = product.closed_since(target_name(target), lun); since && now > *since) {
    fail(Rule::sent_after_close,
         fmt::format("a write to LUN {} is sent {} us after the process of domain {} has closed "
                     "the disk",
                     lun - 1, std::chrono::duration_cast<microseconds>(now - *since).count(),
                     process->guest()));
  }
}

void HostSimulationRun::on_command_arrived(std::size_t target, const SimCommand& command) {
  const auto& owners = storage_.target(target).options().lun_owners;
  const auto owner = owners.find(command.lun);
  if (owner != owners.end() && owner->second != command.chap_name) {
    fail(Rule::foreign_login, fmt::format("LUN {} of {} is addressed in a session of {}",
                                          command.lun - 1, owner->second, command.chap_name));
  }
}

void HostSimulationRun::on_lun_reset(const SimReactor& sender, std::uint16_t lun) {
  count("LOGICAL UNIT RESET");
  SimulatedProcess* process = hosts_[sender.computer()]->process_of_thread(sender);
  const bool runs = process != nullptr && process->product() != nullptr;
  if (const auto since = runs ? process->product()->suspended_since() : std::nullopt;
      since && reactor_.now() > *since) {
    fail(Rule::foreign_reset,
         fmt::format("LUN {} is reset, whose guest is suspended and may go on elsewhere", lun - 1));
  }
  const auto number = storage_.lun_numbered(lun);
  if (number && plan_.luns[*number].exclusive == 0) {
    fail(Rule::foreign_reset, fmt::format("LUN {} is reset, which other hosts may use", *number));
  }
}

void HostSimulationRun::on_login(std::size_t terminated, bool by_sibling) {
  count("login");
  if (terminated != 0) {
    count(by_sibling ? "tasks ended by a login of a sibling portal" : "tasks ended by a login");
  }
}

HostSimulationResult run_plan(const Plan& plan, const HostSimulationOptions& options) {
  set_log_level(LogLevel::info);
  HostSimulationRun run(plan, options);
  return run.run();
}

}  // namespace iscsi_blkback
