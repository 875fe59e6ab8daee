#include "blkback/guest/guest_data_plane.h"

#include <utility>

namespace iscsi_blkback {

// The control side's end of a disk.
class GuestDataPlane::Port final : public DiskPort {
 public:
  Port(GuestDataPlane& plane, DiskHandle handle, DiskTeller teller)
      : plane_(plane), handle_(handle), teller_(std::move(teller)) {}
  ~Port() override { teller_.end(); }

  void add_portals(std::vector<ResolvedPortal> portals) override {
    with_disk([portals = std::move(portals)](OpenDisk& disk) { disk.add_portals(portals); });
  }
  void add_paths(std::vector<ResolvedPortal> portals,
                 std::function<void(Result<void>)> done) override {
    ask_paths([portals = std::move(portals)](DiskPaths& paths) { return paths.add_all(portals); },
              std::move(done));
  }
  void remove_paths(PathChoice choice,
                    std::function<void(Result<std::vector<ResolvedPortal>>)> done) override {
    ask_paths([choice = std::move(choice)](DiskPaths& paths) { return paths.remove(choice); },
              std::move(done));
  }
  void change_policies(const PathPolicySettings& changes) override {
    with_disk([changes](OpenDisk& disk) { disk.device().change_policies(changes); });
  }
  void set_no_path_retry(std::optional<NoPathRetry> wait) override {
    with_disk([wait](OpenDisk& disk) { disk.device().set_no_path_retry(wait); });
  }
  void set_read_only(bool read_only) override {
    with_disk([read_only](OpenDisk& disk) { disk.set_read_only(read_only); });
  }
  void connect_ring(FrontendRing ring, RingEvents& events) override {
    teller_.set_ring_events(events);
    with_disk([ring = std::move(ring)](OpenDisk& disk) mutable { disk.connect(std::move(ring)); });
  }
  void serve_nbd(UniqueFd listening, bool discards) override {
    // Shared, for a message can be copied.
    with_disk([listening = std::make_shared<UniqueFd>(std::move(listening)),
               discards](OpenDisk& disk) { disk.serve_nbd(std::move(*listening), discards); });
  }
  void disconnect_ring(RingEnd end) override {
    with_disk([end](OpenDisk& disk) { disk.disconnect(end); });
  }
  void close(bool abandon) override {
    with_disk([abandon](OpenDisk& disk) { disk.close(abandon); });
  }
  void keep_place() override {
    with_disk([](OpenDisk& disk) { disk.keep_place(); });
  }

 private:
  // Runs use on the reactor's thread, with the disk as long as it is there.
  template <class Use>
  void with_disk(Use&& use) {
    plane_.reactor_.post(
        [&plane = plane_, handle = handle_, use = std::forward<Use>(use)]() mutable {
          const auto found = plane.disks_.find(handle);
          if (found != plane.disks_.end()) {
            use(*found->second);
          }
        });
  }
  // The same with its paths, unless it is being closed; tells done, on the control thread, what use
  // returns.
  template <class Value, class Use>
  void ask_paths(Use&& use, std::function<void(Result<Value>)> done) {
    plane_.reactor_.post([&plane = plane_, handle = handle_, use = std::forward<Use>(use),
                          done = std::move(done)]() mutable {
      const auto found = plane.disks_.find(handle);
      DiskPaths* paths = found == plane.disks_.end() ? nullptr : found->second->paths();
      Result<Value> answer =
          paths != nullptr ? use(*paths) : fail(ErrorCode::unavailable, "the disk is not in use");
      plane.control_.post([done = std::move(done), answer = std::move(answer)]() mutable {
        done(std::move(answer));
      });
    });
  }

  GuestDataPlane& plane_;
  const DiskHandle handle_;
  DiskTeller teller_;
};

GuestDataPlane::GuestDataPlane(Reactor& reactor, Reactor& control, GrantTable& grants,
                               EventChannels& channels, DomainId own_domain, DomainId guest,
                               std::string barrier_directory,
                               std::optional<TimePoint> host_started_at, std::string host_id,
                               BarrierJobs* barrier_jobs, ReactorPlace place)
    : reactor_(reactor),
      control_(control),
      guest_(guest),
      barrier_directory_(std::move(barrier_directory)),
      host_started_at_(host_started_at),
      dispatcher_(reactor, channels),
      turn_(reactor, grants),
      sessions_(reactor, own_domain, guest, std::move(host_id), barrier_jobs, place),
      collect_(
          reactor, [](void* self) noexcept { static_cast<GuestDataPlane*>(self)->collect(); },
          this) {
  sessions_.on_change(
      [](void* self) noexcept { static_cast<GuestDataPlane*>(self)->collect_.schedule(); }, this);
}

GuestDataPlane::~GuestDataPlane() = default;

std::unique_ptr<DiskPort> GuestDataPlane::open(DiskHandle disk, DiskSpecification specification,
                                               DiskEvents& events) {
  specification.multipath.barrier_directory = barrier_directory_;
  specification.multipath.host_started_at = host_started_at_;
  DiskTeller teller(control_, events);
  reactor_.post([this, disk, teller, specification = std::move(specification)]() mutable {
    const OpenDisk::Environment environment{reactor_,  turn_,    dispatcher_,
                                            sessions_, collect_, guest_};
    disks_.emplace(disk, std::make_unique<OpenDisk>(environment, disk, std::move(teller),
                                                    std::move(specification), guest_now_));
  });
  return std::make_unique<Port>(*this, disk, std::move(teller));
}

void GuestDataPlane::see_guest(const GuestNow& guest) {
  reactor_.post([this, guest] {
    // A guest that has ended does not go on, whatever has its number now.
    const bool has_ended =
        guest_now_.state == GuestState::moved || guest_now_.state == GuestState::ended;
    if (has_ended || (guest.state == GuestState::runs && guest.vm != guest_now_.vm)) {
      return;
    }
    take_guest(first_of_guest_, {guest.state, guest_now_.vm});
  });
}

void GuestDataPlane::set_guest(DiskHandle first, const GuestNow& guest) {
  reactor_.post([this, first, guest] { take_guest(first, guest); });
}

void GuestDataPlane::take_guest(DiskHandle first, const GuestNow& guest) {
  first_of_guest_ = first;
  guest_now_ = guest;  // for those that are opened from now on
  for (auto at = disks_.lower_bound(first); at != disks_.end(); ++at) {
    at->second->device().set_guest(guest);
  }
}

void GuestDataPlane::query(std::function<void(std::vector<DiskReport>)> done) {
  reactor_.post([this, done = std::move(done)]() mutable {
    std::vector<DiskReport> reports;
    for (auto& [handle, disk] : disks_) {
      reports.push_back(disk->report());
    }
    control_.post([done = std::move(done), reports = std::move(reports)]() mutable {
      done(std::move(reports));
    });
  });
}

// Disks that have nothing under way any more give back their sessions; they are reported as closed
// when those are gone, too. Sessions end within their timeouts, whatever the targets do.
void GuestDataPlane::collect() {
  for (auto at = disks_.begin(); at != disks_.end();) {
    if (!at->second->closed()) {
      ++at;
      continue;
    }
    const std::vector<Session*> sessions = at->second->sessions();
    released_.push_back(at->second->teller());
    at = disks_.erase(at);
    for (Session* session : sessions) {
      sessions_.release(*session);
    }
  }
  if (released_.empty() || sessions_.stopping()) {
    return;
  }
  for (const DiskTeller& teller : std::exchange(released_, {})) {
    teller.tell_disk([](DiskEvents& events) { events.on_closed(); });
  }
}

}  // namespace iscsi_blkback
