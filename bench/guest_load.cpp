#include "bench/guest_load.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/uring_reactor.h"
#include "blkback/guest/guest_data_plane.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr DiskHandle kDisk = 1;
constexpr DomainId kGuest = 1;
constexpr std::uint32_t kSectorsPerRequest = kMaxDirectSegments * kSectorsPerPage;
constexpr std::chrono::seconds kPatience{20};

double cpu_seconds(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

}  // namespace

class GuestLoad::Impl final : public DiskEvents, public RingEvents {
 public:
  explicit Impl(std::unique_ptr<UringReactor> reactor)
      : reactor_(std::move(reactor)),
        grants_(xen_.grants().open(0)),
        channels_(xen_.events().open(0)),
        plane_(std::in_place, *reactor_, *reactor_, *grants_, *channels_, DomainId{0}, kGuest) {
    FakeFrontend::Options options;
    options.domain = kGuest;
    options.ring_pages = 16;
    frontend_.emplace(xen_, options);
    thread_ = std::thread([this] { reactor_->run(); });
  }

  ~Impl() {
    if (ring_connected_) {
      port_->disconnect_ring(RingEnd::answer);
      static_cast<void>(wait([this] { return ring_disconnected_; }));
    }
    if (port_ != nullptr) {
      port_->close(false);
      static_cast<void>(wait([this] { return closed_; }));
    }
    reactor_->stop();
    thread_.join();
    port_.reset();
    plane_.reset();
    frontend_.reset();
  }

  Result<void> connect(const Disk& disk) {
    sectors_ = disk.bytes / kSectorBytes;
    DiskSpecification specification;
    specification.lun = disk.lun;
    specification.session.initiator_name = "iqn.2026-01.local.iscsi-blkback:load";
    specification.session.target_name = disk.target_name;
    specification.multipath.alias = "bench";
    for (const std::uint16_t port : disk.ports) {
      ResolvedPortal portal;
      portal.portal = {"127.0.0.1", port, {}};
      portal.address = SocketAddress::parse("127.0.0.1", port).value();
      portal.target_name = disk.target_name;
      specification.portals.push_back(std::move(portal));
    }
    port_ = plane_->open(kDisk, std::move(specification), *this);
    if (!wait([this] { return ready_; })) {
      return fail(ErrorCode::timed_out, "the disk is not ready: " + trouble_);
    }
    const auto deadline = SteadyClock::now() + kPatience;
    while (paths_up() < disk.ports.size()) {
      if (SteadyClock::now() > deadline) {
        return fail(ErrorCode::timed_out, "not all paths come up");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    frontend_->set_up_ring();
    FrontendRing ring;
    ring.queues = {{frontend_->ring_references(), frontend_->event_port()}};
    ring.abi = BlkifAbi::x86_64;
    port_->connect_ring(std::move(ring), *this);
    if (!wait([this] { return ring_result_.has_value(); })) {
      return fail(ErrorCode::timed_out, "the ring does not get connected");
    }
    ring_connected_ = ring_result_->has_value();
    return *ring_result_;
  }

  LoadResult run(bool write, std::uint32_t io_bytes, std::uint32_t depth,
                 std::chrono::milliseconds duration) {
    clockid_t reactor_clock{};
    ::pthread_getcpuclockid(thread_.native_handle(), &reactor_clock);
    write_ = write;
    io_sectors_ = io_bytes / kSectorBytes;
    data_.assign(io_bytes, std::byte{0x5a});
    ios_.assign(depth, Io{});
    result_ = LoadResult{};
    frontend_->on_completion(
        [this](const FakeFrontend::Completion& completion) { complete(completion); });

    running_ = true;
    const double cpu_before = cpu_seconds(reactor_clock);
    const auto started = SteadyClock::now();
    const auto end = started + duration;
    for (std::size_t index = 0; index < ios_.size(); ++index) {
      issue(index);
    }
    frontend_->push();
    while (frontend_->outstanding() != 0) {
      pollfd bell{frontend_->event_fd(), POLLIN, 0};
      ::poll(&bell, 1, 1000);
      now_ = SteadyClock::now();
      running_ = now_ < end;
      frontend_->poll();
      frontend_->push();
    }
    const double elapsed = std::chrono::duration<double>(SteadyClock::now() - started).count();
    const auto ios = static_cast<double>(std::max<std::uint64_t>(result_.latency.count(), 1));
    result_.ios_per_second = ios / elapsed;
    result_.cpu_us_per_io = (cpu_seconds(reactor_clock) - cpu_before) * 1e6 / ios;
    return result_;
  }

 private:
  struct Io {
    SteadyClock::time_point started{};
    std::uint32_t requests = 0;  // of the ring, not answered yet
  };

  // --- Events: on the reactor's thread
  // ---------------------------------------------------------------
  void on_ready(const Geometry&, const LunNames&) override {
    say([this] { ready_ = true; });
  }
  void on_grown(const Geometry&) override {}
  void on_conflict(const std::string& why) override {
    say([this, &why] { trouble_ = why; });
  }
  void on_unavailable(const std::string& why) override {
    say([this, &why] { trouble_ = why; });
  }
  void on_ring_connected(const Result<void>& result) override {
    say([this, &result] { ring_result_ = result; });
  }
  void on_ring_broken(const std::string& why) override {
    say([this, &why] { trouble_ = why; });
  }
  void on_ring_disconnected() override {
    say([this] { ring_disconnected_ = true; });
  }
  void on_closed() override {
    say([this] { closed_ = true; });
  }

  template <class Change>
  void say(Change change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, condition);
  }

  std::size_t paths_up() {
    std::optional<std::size_t> up;
    plane_->query([this, &up](const std::vector<DiskReport>& reports) {
      std::size_t count = 0;
      for (const DiskReport& report : reports) {
        count += static_cast<std::size_t>(
            std::count_if(report.multipath.paths.begin(), report.multipath.paths.end(),
                          [](const PathSnapshot& path) { return path.state == PathState::up; }));
      }
      say([&up, count] { up = count; });
    });
    // No time limit: the callback refers to this frame.
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&up] { return up.has_value(); });
    return *up;
  }

  // --- The guest: on the caller's thread
  // -------------------------------------------------------------
  void issue(std::size_t index) {
    Io& io = ios_[index];
    io.started = SteadyClock::now();
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    const std::uint64_t first = random_ % (sectors_ / io_sectors_) * io_sectors_;
    for (std::uint32_t done = 0; done < io_sectors_; done += kSectorsPerRequest) {
      const std::uint32_t count = std::min(kSectorsPerRequest, io_sectors_ - done);
      const auto id =
          write_ ? frontend_->write(first + done,
                                    std::span(data_).subspan(std::size_t{done} * kSectorBytes,
                                                             std::size_t{count} * kSectorBytes),
                                    index)
                 : frontend_->read(first + done, count, index);
      ISCSI_BLKBACK_ASSERT(id.has_value());  // the ring is longer than any depth here
      ++io.requests;
    }
  }

  void complete(const FakeFrontend::Completion& completion) {
    result_.errors += completion.status == kBlkifOkay ? 0 : 1;
    Io& io = ios_[completion.tag];
    if (--io.requests != 0) {
      return;
    }
    result_.latency.record(now_ - io.started);
    if (running_) {
      issue(completion.tag);
    }
  }

  std::unique_ptr<UringReactor> reactor_;
  MemXen xen_;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<EventChannels> channels_;
  std::optional<GuestDataPlane> plane_;
  std::unique_ptr<DiskPort> port_;
  std::optional<FakeFrontend> frontend_;
  std::thread thread_;

  std::mutex mutex_;  // of what the reactor's thread tells
  std::condition_variable changed_;
  bool ready_ = false;
  bool ring_disconnected_ = false;
  bool closed_ = false;
  std::optional<Result<void>> ring_result_;
  std::string trouble_ = "no reason is known";

  bool ring_connected_ = false;
  std::uint64_t sectors_ = 0;
  bool write_ = false;
  bool running_ = false;
  std::uint32_t io_sectors_ = 0;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
  std::vector<std::byte> data_;
  std::vector<Io> ios_;
  SteadyClock::time_point now_{};
  LoadResult result_;
};

GuestLoad::GuestLoad(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GuestLoad::~GuestLoad() = default;

Result<std::unique_ptr<GuestLoad>> GuestLoad::start(const Disk& disk) {
  UringReactor::Options options;
  options.poll = disk.poll;
  auto reactor = UringReactor::create(options);
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  auto impl = std::make_unique<Impl>(std::move(*reactor));
  if (auto connected = impl->connect(disk); !connected) {
    return tl::unexpected(connected.error());
  }
  return std::unique_ptr<GuestLoad>(new GuestLoad(std::move(impl)));
}

LoadResult GuestLoad::run(bool write, std::uint32_t io_bytes, std::uint32_t depth,
                          std::chrono::milliseconds duration) {
  return impl_->run(write, io_bytes, depth, duration);
}

}  // namespace iscsi_blkback
