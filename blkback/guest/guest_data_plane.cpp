#include "blkback/guest/guest_data_plane.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "blkback/guest/log_limits.h"
#include "multipath/attach/disk_paths.h"
#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kDiskLog = "disk";

MultipathOptions with_holder(MultipathOptions options, const std::string& name, DomainId guest) {
  options.holder_name = name;
  options.holder_domain = guest;
  return options;
}

}  // namespace

// A disk from open_device to on_device_closed.
class GuestDataPlane::Disk final : public MultipathDevice::Observer, public Vbd::Owner {
 public:
  Disk(GuestDataPlane& plane, DiskHandle handle, DiskSpecification specification)
      : plane_(plane),
        handle_(handle),
        name_(fmt::format("{} of guest {}", specification.multipath.alias, plane.guest_)),
        device_(plane.reactor_, plane.sessions_.fencing(),
                with_holder(std::move(specification.multipath), name_, plane.guest_), *this),
        paths_(plane.sessions_, device_, specification.lun, std::move(specification.session),
               specification.session_variant),
        trouble_timer_(
            plane.reactor_, [](void* self) noexcept { static_cast<Disk*>(self)->report_trouble(); },
            this),
        patience_timer_(
            plane.reactor_, [](void* self) noexcept { static_cast<Disk*>(self)->give_up(); }, this),
        refused_timer_(
            plane.reactor_, [](void* self) noexcept { static_cast<Disk*>(self)->add_refused(); },
            this) {
    opened_at_ = plane.reactor_.now();
    device_.set_guest(plane.guest_now_);
    add_portals(specification.portals);
    trouble_timer_.start_after(kTroubleInterval);
  }

  // Gone from the device and from every ring: closed() is true.
  ~Disk() { ISCSI_BLKBACK_ASSERT(vbd_ == nullptr); }

  void add_portals(const std::vector<ResolvedPortal>& portals) {
    for (const ResolvedPortal& where : portals) {
      if (closing_) {
        return;
      }
      if (auto added = paths_.add(where); !added && added.error().code != ErrorCode::conflict) {
        log_limited(refused_log_, plane_.reactor_.now(), LogLevel::error, kDiskLog,
                    "{}: the path by {} is not used yet: {}", name_, where.portal.to_string(),
                    added.error().message);
        add_later(where);
      }
    }
  }

  // There may be room when another disk of the guest has gone.
  void add_later(const ResolvedPortal& where) {
    const bool known =
        std::any_of(refused_.begin(), refused_.end(),
                    [&](const ResolvedPortal& other) { return same_path(other, where); });
    if (!known && refused_.size() < kMaxPathsPerDisk) {
      refused_.push_back(where);
    }
    if (!refused_timer_.armed()) {
      refused_timer_.start_after(kRefusedInterval);
    }
  }
  void add_refused() { add_portals(std::exchange(refused_, {})); }

  // Null while the disk is being closed.
  [[nodiscard]] DiskPaths* paths() { return closing_ ? nullptr : &paths_; }

  void connect(DomainId guest, FrontendRing ring) {
    Result<void> result;
    if (closing_ || vbd_ != nullptr || !device_.ready()) {
      result = fail(ErrorCode::unavailable, "the disk is not ready");
    } else {
      RingParameters parameters;
      parameters.domain = guest;
      parameters.abi = ring.abi;
      parameters.ring_references = std::move(ring.references);
      parameters.event_port = ring.event_channel;
      VbdOptions options;
      options.name = name_;
      options.log = &vbd_log_;
      auto vbd = Vbd::open(plane_.reactor_, plane_.grants_, plane_.dispatcher_, device_, parameters,
                           std::move(options), *this);
      if (vbd) {
        vbd_ = std::move(*vbd);
      } else {
        result = tl::unexpected(vbd.error());
      }
    }
    plane_.tell([handle = handle_, result = std::move(result)](Events& events) {
      events.on_ring_connected(handle, result);
    });
  }

  void disconnect(RingEnd end) {
    if (vbd_ == nullptr) {
      plane_.tell([handle = handle_](Events& events) { events.on_ring_disconnected(handle); });
    } else {
      if (!std::exchange(vbd_closing_, true)) {
        vbd_->close([](void* self) noexcept { static_cast<Disk*>(self)->on_vbd_closed(); }, this);
      }
      if (end != RingEnd::answer) {
        vbd_->abandon();
      }
    }
    if (end == RingEnd::abandon) {
      close(true);
    }
  }

  void close(bool abandon) {
    if (abandon && !std::exchange(impatient_, true)) {
      patience_timer_.start_after(kPatience);
    }
    if (std::exchange(closing_, true)) {
      return;
    }
    trouble_timer_.stop();
    refused_timer_.stop();
    // However the guest ended, it may go on: elsewhere, started anew here, after its crash by what
    // its journal says. An old write of ours must not land after that.
    device_.close(
        true, [](void* self) noexcept { static_cast<Disk*>(self)->on_device_closed(); }, this);
  }

  void set_guest(const GuestNow& guest) { device_.set_guest(guest); }

  [[nodiscard]] MultipathDevice& device() { return device_; }
  [[nodiscard]] bool closed() const { return device_closed_ && vbd_ == nullptr; }
  [[nodiscard]] std::vector<Session*> sessions() const { return paths_.sessions(); }

  [[nodiscard]] DiskReport report() const {
    DiskReport report;
    report.disk = handle_;
    report.multipath = device_.snapshot();
    if (vbd_ != nullptr) {
      const VbdStatistics& statistics = vbd_->statistics();
      RingStatistics& ring = report.ring.emplace();
      ring.read_requests = statistics.reads;
      ring.write_requests = statistics.writes;
      ring.flush_requests = statistics.flushes;
      ring.error_responses = statistics.errors;
      ring.read_sectors = statistics.read_sectors;
      ring.written_sectors = statistics.written_sectors;
      ring.in_flight = vbd_->in_flight();
      ring.held_flushes = vbd_->held_flushes();
    }
    return report;
  }

 private:
  void on_path_removed(MultipathDevice&, Session& session) noexcept override {
    paths_.let_go(session);
  }

  void on_ready(MultipathDevice& device) noexcept override {
    trouble_timer_.stop();
    plane_.tell([handle = handle_, geometry = device.geometry(), names = device.names()](
                    Events& events) { events.on_device_ready(handle, geometry, names); });
  }

  void on_conflict(MultipathDevice&, const std::string& why) noexcept override {
    plane_.tell(
        [handle = handle_, why](Events& events) { events.on_device_conflict(handle, why); });
  }

  void on_paths_changed(MultipathDevice&) noexcept override {}

  void on_grown(MultipathDevice& device) noexcept override {
    plane_.tell([handle = handle_, geometry = device.geometry()](Events& events) {
      events.on_device_grown(handle, geometry);
    });
  }

  void on_vbd_broken(Vbd&, const Error& error) noexcept override {
    plane_.tell([handle = handle_, why = error.message](Events& events) {
      events.on_ring_broken(handle, why);
    });
  }

  void on_vbd_closed() {
    vbd_.reset();
    vbd_closing_ = false;
    plane_.tell([handle = handle_](Events& events) { events.on_ring_disconnected(handle); });
    plane_.collect_.schedule();
  }

  void on_device_closed() {
    device_closed_ = true;
    plane_.collect_.schedule();
  }

  void report_trouble() {
    const MultipathSnapshot snapshot = device_.snapshot();
    std::string trouble = plane_.reactor_.now() < opened_at_ + kPatienceWithPaths
                              ? describe_trouble(snapshot)
                              : describe_delay(snapshot);
    if (!trouble.empty() && trouble != told_trouble_) {
      told_trouble_ = trouble;
      plane_.tell([handle = handle_, why = std::move(trouble)](Events& events) {
        events.on_device_trouble(handle, why);
      });
    }
    trouble_timer_.start_after(kTroubleInterval);
  }

  void give_up() { paths_.give_up(); }

  GuestDataPlane& plane_;
  DiskHandle handle_;
  std::string name_;
  MultipathDevice device_;
  DiskPaths paths_;
  std::unique_ptr<Vbd> vbd_;
  bool vbd_closing_ = false;
  bool closing_ = false;
  bool impatient_ = false;
  bool device_closed_ = false;
  TimePoint opened_at_{};
  std::string told_trouble_;
  std::vector<ResolvedPortal> refused_;  // for want of room
  LogLimiter refused_log_{kMessageLimit};
  VbdLog vbd_log_{LogLimiter(kMessageLimit), LogLimiter(kMessageLimit), LogLimiter(kMessageLimit)};
  Timer trouble_timer_;
  Timer patience_timer_;
  Timer refused_timer_;
};

GuestDataPlane::GuestDataPlane(Reactor& reactor, Reactor& control, GrantTable& grants,
                               EventChannels& channels, DomainId own_domain, DomainId guest,
                               std::string barrier_directory,
                               std::optional<TimePoint> host_started_at, std::string host_id)
    : reactor_(reactor),
      control_(control),
      grants_(grants),
      guest_(guest),
      barrier_directory_(std::move(barrier_directory)),
      host_started_at_(host_started_at),
      dispatcher_(reactor, channels),
      sessions_(reactor, own_domain, guest, std::move(host_id)),
      collect_(
          reactor, [](void* self) noexcept { static_cast<GuestDataPlane*>(self)->collect(); },
          this) {
  sessions_.on_change(
      [](void* self) noexcept { static_cast<GuestDataPlane*>(self)->collect_.schedule(); }, this);
}

GuestDataPlane::~GuestDataPlane() = default;

template <class Tell>
void GuestDataPlane::tell(Tell&& event) {
  control_.post([this, event = std::forward<Tell>(event)] {
    if (events_ != nullptr) {
      event(*events_);
    }
  });
}

template <class Use>
void GuestDataPlane::with_disk(DiskHandle handle, Use&& use) {
  reactor_.post([this, handle, use = std::forward<Use>(use)]() mutable {
    const auto found = disks_.find(handle);
    if (found != disks_.end()) {
      use(*found->second);
    }
  });
}

template <class Value, class Use>
void GuestDataPlane::ask_paths(DiskHandle handle, Use&& use,
                               std::function<void(Result<Value>)> done) {
  reactor_.post([this, handle, use = std::forward<Use>(use), done = std::move(done)]() mutable {
    const auto found = disks_.find(handle);
    DiskPaths* paths = found == disks_.end() ? nullptr : found->second->paths();
    Result<Value> answer =
        paths != nullptr ? use(*paths) : fail(ErrorCode::unavailable, "the disk is not in use");
    control_.post([done = std::move(done), answer = std::move(answer)]() mutable {
      done(std::move(answer));
    });
  });
}

void GuestDataPlane::open_device(DiskHandle disk, DiskSpecification specification) {
  specification.multipath.barrier_directory = barrier_directory_;
  specification.multipath.host_started_at = host_started_at_;
  reactor_.post([this, disk, specification = std::move(specification)]() mutable {
    disks_.emplace(disk, std::make_unique<Disk>(*this, disk, std::move(specification)));
  });
}

void GuestDataPlane::add_portals(DiskHandle disk, std::vector<ResolvedPortal> portals) {
  with_disk(disk, [portals = std::move(portals)](Disk& found) { found.add_portals(portals); });
}

void GuestDataPlane::add_paths(DiskHandle disk, std::vector<ResolvedPortal> portals,
                               std::function<void(Result<void>)> done) {
  ask_paths(
      disk, [portals = std::move(portals)](DiskPaths& paths) { return paths.add_all(portals); },
      std::move(done));
}

void GuestDataPlane::remove_paths(DiskHandle disk, PathChoice choice,
                                  std::function<void(Result<std::vector<ResolvedPortal>>)> done) {
  ask_paths(
      disk, [choice = std::move(choice)](DiskPaths& paths) { return paths.remove(choice); },
      std::move(done));
}

void GuestDataPlane::change_policies(DiskHandle disk, const PathPolicySettings& changes) {
  with_disk(disk, [changes](Disk& found) { found.device().change_policies(changes); });
}

void GuestDataPlane::set_no_path_retry(DiskHandle disk, std::optional<NoPathRetry> wait) {
  with_disk(disk, [wait](Disk& found) { found.device().set_no_path_retry(wait); });
}

void GuestDataPlane::connect_ring(DiskHandle disk, DomainId guest, FrontendRing ring) {
  with_disk(disk, [guest, ring = std::move(ring)](Disk& found) mutable {
    found.connect(guest, std::move(ring));
  });
}

void GuestDataPlane::disconnect_ring(DiskHandle disk, RingEnd end) {
  with_disk(disk, [end](Disk& found) { found.disconnect(end); });
}

void GuestDataPlane::close_device(DiskHandle disk, bool abandon) {
  with_disk(disk, [abandon](Disk& found) { found.close(abandon); });
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

void GuestDataPlane::keep_place(DiskHandle disk) {
  with_disk(disk, [](Disk& found) { found.device().keep_place(); });
}

void GuestDataPlane::set_guest(DiskHandle first, const GuestNow& guest) {
  reactor_.post([this, first, guest] { take_guest(first, guest); });
}

void GuestDataPlane::take_guest(DiskHandle first, const GuestNow& guest) {
  first_of_guest_ = first;
  guest_now_ = guest;  // for those that are opened from now on
  for (auto at = disks_.lower_bound(first); at != disks_.end(); ++at) {
    at->second->set_guest(guest);
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
    released_.push_back(at->first);
    at = disks_.erase(at);
    for (Session* session : sessions) {
      sessions_.release(*session);
    }
  }
  if (released_.empty() || sessions_.stopping()) {
    return;
  }
  for (const DiskHandle handle : std::exchange(released_, {})) {
    tell([handle](Events& events) { events.on_device_closed(handle); });
  }
}

}  // namespace iscsi_blkback
