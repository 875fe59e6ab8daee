#include "tests/simulation/host/product_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>
#include <variant>

#include "blkback/guest/guest_backend.h"
#include "blkback/guest/guest_data_plane.h"
#include "blkback/process/control_request.h"
#include "blkback/process/process_lock.h"
#include "multipath/attach/path_discovery.h"
#include "multipath/fencing/barrier_use.h"
#include "tests/simulation/host/product_configuration.h"
#include "tests/support/blocking_barrier.h"
#include "tests/support/no_portal_resolver.h"
#include "tests/support/sim_barrier_jobs.h"

namespace iscsi_blkback {
namespace {

// Somebody who is not of the simulated world, at the LUN's barrier.
BlockingBarrier enter_barrier(const std::string& run_directory, const Plan& plan, std::size_t lun) {
  const std::size_t target = within(plan.luns[lun].target, plan.targets.size());
  BarrierNames names;
  if (lun_changes_its_names(plan, lun)) {
    names.add({.designators = {{.code_set = 2, .type = 1, .bytes = lun_t10_name(lun)}}},
              target_name(target));
  }
  auto barrier = BlockingBarrier::enter(
      barrier_directory(run_directory),
      lun_barrier_key(lun_wwid(plan, lun), target_name(target), lun_number(lun)),
      {.name = "a stranger", .quiesce_time = std::chrono::milliseconds(plan.world.quiesce_ms)}, {},
      names);
  ISCSI_BLKBACK_ASSERT(barrier);
  return std::move(*barrier);
}

// Breakage::pages_stay_mapped and later_queues_stay_mapped.
class LeakyGrantTable final : public GrantTable {
 public:
  explicit LeakyGrantTable(GrantTable& table) : table_(table) {}

  void leak_all() { leaks_all_ = true; }
  // What is mapped with this reference first.
  void leak(GrantReference first) { leaks_.insert(first); }

  Result<std::unique_ptr<MappedGrants>> map(DomainId domain,
                                            std::span<const GrantReference> references) override {
    auto mapped = table_.map(domain, references);
    if (!mapped || (!leaks_all_ && leaks_.erase(references.front()) == 0)) {
      return mapped;
    }
    leaked_.push_back(std::move(*mapped));
    return std::make_unique<View>(*leaked_.back());
  }
  Result<void> copy(std::span<GrantCopySegment> segments) override { return table_.copy(segments); }

 private:
  struct View final : MappedGrants {
    explicit View(MappedGrants& of) : grants(of) {}
    std::span<std::byte> bytes() override { return grants.bytes(); }
    MappedGrants& grants;
  };

  GrantTable& table_;
  bool leaks_all_ = false;
  std::set<GrantReference> leaks_;
  std::vector<std::unique_ptr<MappedGrants>> leaked_;
};

// Hands everything on, and notes when the I/O side has heard it.
class WatchedDataPlane final : public DataPlane {
 public:
  WatchedDataPlane(DataPlane& plane, SimReactor& io, LeakyGrantTable& leaky, Breakage breakage)
      : plane_(plane), io_(io), leaky_(leaky), breakage_(breakage) {}

  std::unique_ptr<DiskPort> open(DiskHandle disk, DiskSpecification specification,
                                 DiskEvents& events) override {
    disks_[disk] = {.target = specification.session.target_name, .lun = specification.lun};
    return std::make_unique<Port>(*this, disk, plane_.open(disk, std::move(specification), events));
  }
  void set_guest(DiskHandle first, const GuestNow& guest) override {
    GuestNow told = guest;
    if (breakage_ == Breakage::doubt_is_an_end && guest.state == GuestState::in_doubt) {
      told.state = GuestState::ended;
    }
    if (breakage_ != Breakage::suspend_is_missed) {
      plane_.set_guest(first, told);
    }
    io_.post([this, runs = guest.state == GuestState::runs,
              ended = guest.state == GuestState::ended || guest.state == GuestState::moved] {
      guest_has_ended_ = ended;
      suspended_since_ = runs               ? std::nullopt
                         : suspended_since_ ? suspended_since_
                                            : std::optional(io_.now());
    });
  }
  void query(std::function<void(std::vector<DiskReport>)> done) override {
    plane_.query(std::move(done));
  }

  [[nodiscard]] std::optional<TimePoint> suspended_since() const { return suspended_since_; }
  [[nodiscard]] bool guest_has_ended() const { return guest_has_ended_; }
  void note_write(const std::string& target, std::uint16_t lun) {
    for (auto& [handle, disk] : disks_) {
      disk.written = disk.written || (disk.target == target && disk.lun == lun);
    }
  }
  [[nodiscard]] bool has_written(const std::string& target, std::uint16_t lun) const {
    return std::any_of(disks_.begin(), disks_.end(), [&](const auto& entry) {
      const Disk& disk = entry.second;
      return disk.target == target && disk.lun == lun && disk.written && !disk.closed_since;
    });
  }
  [[nodiscard]] std::optional<TimePoint> closed_since(const std::string& target,
                                                      std::uint16_t lun) const {
    std::optional<TimePoint> latest;
    for (const auto& [handle, disk] : disks_) {
      if (disk.target == target && disk.lun == lun) {
        if (!disk.closed_since) {
          return std::nullopt;
        }
        latest = std::max(latest.value_or(*disk.closed_since), *disk.closed_since);
      }
    }
    return latest;
  }

 private:
  struct Disk {
    std::string target;
    std::uint16_t lun = 0;
    std::optional<TimePoint> closed_since = {};
    bool written = false;
  };

  class Port final : public DiskPort {
   public:
    Port(WatchedDataPlane& plane, DiskHandle disk, std::unique_ptr<DiskPort> port)
        : plane_(plane), disk_(disk), port_(std::move(port)) {}

    void add_portals(std::vector<ResolvedPortal> portals) override {
      port_->add_portals(std::move(portals));
    }
    void add_paths(std::vector<ResolvedPortal> portals,
                   std::function<void(Result<void>)> done) override {
      port_->add_paths(std::move(portals), std::move(done));
    }
    void remove_paths(PathChoice choice,
                      std::function<void(Result<std::vector<ResolvedPortal>>)> done) override {
      port_->remove_paths(std::move(choice), std::move(done));
    }
    void change_policies(const PathPolicySettings& changes) override {
      port_->change_policies(changes);
    }
    void set_no_path_retry(std::optional<NoPathRetry> wait) override {
      port_->set_no_path_retry(wait);
    }
    void set_read_only(bool read_only) override { port_->set_read_only(read_only); }
    void connect_ring(FrontendRing ring, RingEvents& events) override {
      plane_.break_ring(ring);
      port_->connect_ring(std::move(ring), events);
    }
    void serve_nbd(UniqueFd listening, bool discards) override {
      port_->serve_nbd(std::move(listening), discards);
    }
    void disconnect_ring(RingEnd end) override {
      const bool missed = plane_.breakage_ == Breakage::close_is_missed && end == RingEnd::abandon;
      port_->disconnect_ring(missed ? RingEnd::answer : end);
      if (end == RingEnd::abandon) {
        plane_.note_closed(disk_);
      }
    }
    void close(bool abandon) override {
      if (plane_.breakage_ != Breakage::close_is_missed) {
        port_->close(abandon);
      }
      plane_.note_closed(disk_);
    }
    void keep_place() override { port_->keep_place(); }

   private:
    WatchedDataPlane& plane_;
    const DiskHandle disk_;
    const std::unique_ptr<DiskPort> port_;
  };

  void break_ring(FrontendRing& ring) {
    if (breakage_ == Breakage::later_queues_are_missed) {
      ring.queues.resize(1);
    }
    for (std::size_t queue = 1; queue < ring.queues.size(); ++queue) {
      if (breakage_ == Breakage::later_queues_stay_mapped) {
        leaky_.leak(ring.queues[queue].references.front());
      }
    }
  }

  void note_closed(DiskHandle disk) {
    io_.post([this, disk] {
      const auto found = disks_.find(disk);
      if (found != disks_.end() && !found->second.closed_since) {
        found->second.closed_since = io_.now();
      }
    });
  }

  DataPlane& plane_;
  SimReactor& io_;
  LeakyGrantTable& leaky_;
  const Breakage breakage_;
  std::map<DiskHandle, Disk> disks_;
  std::optional<TimePoint> suspended_since_;
  bool guest_has_ended_ = false;
};

}  // namespace

// Members are in the order in which they depend on each other.
class ProductProcess::Inside {
 public:
  explicit Inside(Environment from)
      : environment(std::move(from)),
        leaky(environment.grants),
        barrier_jobs(environment.io, SimBarrierJobs::Back::at_once),
        plane(environment.io, environment.control, leaky, environment.channels, 0,
              environment.guest,
              environment.breakage == Breakage::lonely_processes
                  ? std::string()
                  : barrier_directory(environment.configuration.run_directory),
              {}, {}, &barrier_jobs),
        watched(plane, environment.io, leaky, environment.breakage),
        resolver(environment.control, std::make_unique<NoPortalResolver>()),
        backend(GuestBackend::Environment{environment.control, environment.open_store,
                                          &environment.domains, watched, resolver},
                environment.configuration, 0, environment.guest, environment.on_finished) {
    if (environment.breakage == Breakage::pages_stay_mapped) {
      leaky.leak_all();
    }
  }

  void ask(const std::string& line) {
    if (const auto request = parse_guest_request(line)) {
      backend.change(std::get<DiskChange>(*request), [](const Result<void>&) {});
    }
  }

  Environment environment;
  LeakyGrantTable leaky;
  SimBarrierJobs barrier_jobs;
  GuestDataPlane plane;
  WatchedDataPlane watched;
  PathDiscovery resolver;
  GuestBackend backend;
};

ProductProcess::ProductProcess(Environment environment)
    : inside_(std::make_unique<Inside>(std::move(environment))) {}

ProductProcess::~ProductProcess() = default;

Result<void> ProductProcess::start() {
  return inside_->backend.start();
}

void ProductProcess::terminate() {
  inside_->backend.stop();
}

void ProductProcess::remove_path(std::uint32_t device_id, const std::string& portal) {
  inside_->ask(
      fmt::format(R"({{"command":"del_path","devid":{},"portal":"{}"}})", device_id, portal));
}

void ProductProcess::add_path(std::uint32_t device_id, const std::string& portal) {
  inside_->ask(
      fmt::format(R"({{"command":"add_path","devid":{},"portal":"{}"}})", device_id, portal));
}

void ProductProcess::set(std::uint32_t device_id, const std::string& setting,
                         const std::string& value) {
  inside_->ask(fmt::format(R"({{"command":"set","devid":{},"setting":"{}","value":"{}"}})",
                           device_id, setting, value));
}

std::optional<TimePoint> ProductProcess::suspended_since() const {
  return inside_->watched.suspended_since();
}

void ProductProcess::note_write(const std::string& target, std::uint16_t lun) {
  inside_->watched.note_write(target, lun);
}

bool ProductProcess::has_written(const std::string& target, std::uint16_t lun) const {
  return inside_->watched.has_written(target, lun);
}

bool ProductProcess::guest_has_ended() const {
  return inside_->watched.guest_has_ended();
}

std::optional<TimePoint> ProductProcess::closed_since(const std::string& target,
                                                      std::uint16_t lun) const {
  return inside_->watched.closed_since(target, lun);
}

void ProductProcess::describe(std::function<void(std::string)> done) {
  inside_->backend.query([done = std::move(done)](const GuestStatus& status) {
    std::string text = fmt::format("guest {}:", status.guest);
    for (const DiskStatus& disk : status.disks) {
      text += fmt::format(" [{} frontend {} backend {} \"{}\"", disk.node.name(),
                          to_string(disk.frontend_state), to_string(disk.backend_state),
                          disk.hotplug_error);
      if (disk.report) {
        const MultipathSnapshot& map = disk.report->multipath;
        text += fmt::format("; {} of {} paths up, {} queued, {} held, {} in flight, {} leaving",
                            map.paths_up(), map.paths.size(), map.queued, map.held, map.in_flight,
                            map.leaving);
        for (const PathSnapshot& path : map.paths) {
          text += fmt::format("; {}: {} {} \"{}\"", path.portal, to_string(path.state),
                              to_string(path.session_state), path.last_error);
        }
      }
      text += "]";
    }
    done(std::move(text));
  });
}

std::string_view fence_in_log(std::string_view line) {
  struct Told {
    std::string_view text;
    std::string_view fence;
  };
  constexpr Told kTold[] = {
      {"lost writes are fenced by LOGICAL UNIT RESET", "fence by LOGICAL UNIT RESET"},
      {"lost writes are fenced by PREEMPT AND ABORT", "fence by PREEMPT AND ABORT"},
      {"the lost session is fenced", "fence by a sibling portal"},
      {"the LUN is in use by", "wait for a disk in use"},
      {"can land there any more", "wait for a predecessor"},
      {"what a process of this host that has died had sent", "wait for a dead process"},
      {"the session of a process that has died is fenced", "fence of a dead process's session"},
  };
  for (const Told& told : kTold) {
    if (line.find(told.text) != std::string_view::npos) {
      return told.fence;
    }
  }
  return {};
}

bool lun_is_blocked(const std::string& run_directory, const Plan& plan, std::size_t lun,
                    TimePoint now) {
  BlockingBarrier barrier = enter_barrier(run_directory, plan, lun);
  const bool blocked = !barrier.look(now).may_write();
  barrier.leave();
  return blocked;
}

std::shared_ptr<void> block_lun(const std::string& run_directory, const Plan& plan,
                                std::size_t lun) {
  BlockingBarrier barrier = enter_barrier(run_directory, plan, lun);
  barrier.set_use(HolderUse::ended, 0, {});
  barrier.set_unfenced(0, true, TimePoint::max());
  return {new BlockingBarrier(std::move(barrier)), [](BlockingBarrier* stranger) {
            stranger->leave();
            delete stranger;
          }};
}

RivalDisk::RivalDisk(const std::string& run_directory, const Plan& plan, std::size_t lun)
    : barrier_(std::make_unique<BlockingBarrier>(enter_barrier(run_directory, plan, lun))) {}

RivalDisk::~RivalDisk() {
  barrier_->leave();
}

bool RivalDisk::has_the_lun(TimePoint now) {
  return barrier_->look(now).may_write();
}

void RivalDisk::write() {
  barrier_->set_outstanding(0, true);
  barrier_->set_outstanding(0, false);
}

void note_death(const std::string& run_directory, pid_t pid, TimePoint now) {
  note_death_in_barriers(barrier_directory(run_directory), pid, now);
}

}  // namespace iscsi_blkback
