#include "blkback/process/guest_process.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "base/core_dumps.h"
#include "base/log.h"
#include "base/privileges.h"
#include "base/process_signals.h"
#include "base/uring_reactor.h"
#include "blkback/control/control_protocol.h"
#include "blkback/guest/guest_backend.h"
#include "blkback/guest/guest_data_plane.h"
#include "blkback/guest/log_limits.h"
#include "blkback/guest/spread_data_plane.h"
#include "blkback/guest/statistics_folder.h"
#include "blkback/guest/suspend_sentry.h"
#include "blkback/process/control_request.h"
#include "blkback/process/control_server.h"
#include "blkback/process/guest_doors.h"
#include "blkback/process/guest_helper.h"
#include "blkback/process/guest_sandbox.h"
#include "blkback/process/host_end.h"
#include "blkback/process/own_domain.h"
#include "blkback/process/process_lock.h"
#include "blkback/process/status_report.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/xenstore.h"
#include "initiator/login/chap.h"
#include "multipath/attach/host_id.h"
#include "multipath/attach/path_discovery.h"
#include "multipath/attach/portal_resolver.h"
#include "multipath/fencing/barrier_thread.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kGuestLog = "guest";
// After SIGTERM; logouts and resets are done by then, or something is wrong.
constexpr std::chrono::seconds kTerminateTimeout{15};
constexpr std::chrono::seconds kListenRetry{10};
constexpr std::chrono::seconds kLookAtLock{1};

// One of the I/O threads: runs the reactor until it is destroyed.
class ReactorThread {
 public:
  static Result<ReactorThread> start(UringReactor& reactor) {
    auto thread = OwnStackThread::start([&reactor] { reactor.run(); });
    if (!thread) {
      return tl::unexpected(thread.error());
    }
    return ReactorThread(reactor, std::move(*thread));
  }
  ReactorThread(ReactorThread&& other) noexcept
      : reactor_(std::exchange(other.reactor_, nullptr)), thread_(std::move(other.thread_)) {}
  ReactorThread& operator=(ReactorThread&&) = delete;
  ~ReactorThread() {
    if (reactor_ != nullptr) {
      reactor_->stop();
    }
  }

 private:
  ReactorThread(UringReactor& reactor, OwnStackThread thread)
      : reactor_(&reactor), thread_(std::move(thread)) {}

  UringReactor* reactor_;
  OwnStackThread thread_;  // joined when it is destroyed, after the reactor has been stopped
};

// A reactor of the I/O side, and all that is its thread's alone.
struct IoPart {
  std::unique_ptr<UringReactor> reactor;
  std::unique_ptr<GrantTable> grants;
  std::unique_ptr<EventChannels> channels;
  std::optional<BarrierThread> barrier_thread;
  std::optional<GuestDataPlane> plane;
};

// Everything of a guest's process. Members are in the order in which they depend on each other.
class GuestProcess {
 public:
  GuestProcess(const Configuration& configuration, DomainId domain)
      : configuration_(configuration), domain_(domain) {}

  // Opens what the process needs, in the order in which its absence is most telling.
  Result<void> open() {
    auto lock = ProcessLock::acquire(guest_lock_path(configuration_.run_directory, domain_),
                                     lock_purpose(domain_));
    if (!lock) {
      return tl::unexpected(lock.error());
    }
    lock_.emplace(std::move(*lock));
    auto own_domain = read_own_domain();
    if (!own_domain) {
      return tl::unexpected(own_domain.error());
    }
    own_domain_ = *own_domain;
    if (auto opened = open_doors(); !opened) {
      return opened;
    }
    while (io_.size() < configuration_.reactors) {
      if (auto opened = open_io_part(); !opened) {
        return opened;
      }
    }
    auto control = UringReactor::create();
    if (!control) {
      return tl::unexpected(control.error());
    }
    control_ = std::move(*control);
    auto directory = make_portal_resolver_with_its_ring();
    if (!directory) {
      return tl::unexpected(directory.error());
    }
    portal_resolver_ = *directory;
    host_start_ = disorderly_host_start(
        {configuration_.run_directory, configuration_.state_directory}, control_->now());
    host_id_ = read_host_id();
    // OpenSSL reads its files when it is first used: now, and not at a login on the I/O thread.
    (void)usable_chap_algorithms({});
    domains_ = doors_->open_domain_info();
    sentry_domains_ = doors_->open_domain_info();
    return configuration_.sandbox ? enter_sandbox() : Result<void>();
  }

  Result<void> run() {
    terminate_timer_.emplace(
        *control_, [](void*) noexcept { give_up(); }, this);
    auto signals = ProcessSignals::create(
        *control_, [](void* self) noexcept { static_cast<GuestProcess*>(self)->terminate(); },
        this);
    if (!signals) {
      return tl::unexpected(signals.error());
    }
    std::vector<DataPlane*> planes;
    for (IoPart& part : io_) {
      const ReactorPlace place{static_cast<std::uint32_t>(planes.size()), configuration_.reactors};
      part.barrier_thread.emplace(*part.reactor);
      part.plane.emplace(*part.reactor, *control_, *part.grants, *part.channels, own_domain_,
                         domain_, barrier_directory(configuration_.run_directory), host_start_,
                         host_id_, &*part.barrier_thread, place);
      planes.push_back(&*part.plane);
    }
    plane_.emplace(std::move(planes));
    resolver_ = make_path_discovery(*control_, *portal_resolver_);
    sentry_.emplace(
        std::move(sentry_domains_), domain_,
        [this](const GuestNow& guest) {
          for (IoPart& part : io_) {
            part.plane->see_guest(guest);
          }
        },
        [this] { control_->post([this] { backend_->tell_guest_again(); }); });
    backend_ = std::make_unique<GuestBackend>(
        GuestBackend::Environment{
            *control_, [this] { return open_xenstore(doors_->xenstore_times(), &*sentry_); },
            domains_.get(), *plane_, *resolver_, &statistics_, &doors_->firmware_sockets()},
        configuration_, own_domain_, domain_, [this] { control_->stop(); });
    if (auto started = backend_->start(); !started) {
      return started;
    }
    listen_timer_.emplace(
        *control_, [](void* self) noexcept { static_cast<GuestProcess*>(self)->listen(); }, this);
    listen();
    lock_timer_.emplace(
        *control_, [](void* self) noexcept { static_cast<GuestProcess*>(self)->look_at_lock(); },
        this);
    lock_timer_->start_after(kLookAtLock);
    {
      std::vector<ReactorThread> threads;
      for (IoPart& part : io_) {
        auto started = ReactorThread::start(*part.reactor);
        if (!started) {
          return tl::unexpected(started.error());
        }
        threads.push_back(std::move(*started));
      }
      control_->run();
    }
    server_.reset();
    return {};
  }

  ~GuestProcess() {
    // The resolver first: no late answer reaches the backend.
    resolver_.reset();
    backend_.reset();
    sentry_.reset();
    plane_.reset();
    io_.clear();
    if (doors_ != nullptr) {
      doors_->remove_files();
    }
  }

 private:
  // Whose user, number and group no other process has, and those of all guests share the group.
  [[nodiscard]] ProcessUser user() const {
    return {configuration_.first_guest_user + 1 + domain_, configuration_.first_guest_user};
  }

  Result<void> open_io_part() {
    auto grants = open_grant_table();
    if (!grants) {
      return tl::unexpected(grants.error());
    }
    auto channels = open_event_channels(domain_);
    if (!channels) {
      return tl::unexpected(channels.error());
    }
    UringReactor::Options options;
    options.poll = {std::chrono::microseconds(configuration_.poll_max_us),
                    configuration_.poll_cpu_share};
    auto reactor = UringReactor::create(options);
    if (!reactor) {
      return tl::unexpected(reactor.error());
    }
    IoPart& part = io_.emplace_back();
    part.reactor = std::move(*reactor);
    part.grants = std::move(*grants);
    part.channels = std::move(*channels);
    return {};
  }

  // Before it is opened what the helper must not have.
  Result<void> open_doors() {
    GuestPlace place{configuration_.run_directory, own_domain_, domain_, {}};
    if (::geteuid() == 0) {
      place.user = user();
    }
    if (auto prepared = prepare_run_folders(place); !prepared) {
      return prepared;
    }
    if (configuration_.sandbox) {
      auto helper = start_guest_helper(place);
      if (!helper) {
        return tl::unexpected(helper.error());
      }
      doors_ = std::move(*helper);
    } else {
      doors_ = make_own_doors(place);
    }
    // Where this one has no sandbox, too: the others of the host may have one.
    return place.user ? share_new_files(place.user->group) : Result<void>();
  }

  Result<void> enter_sandbox() {
    const bool root = ::geteuid() == 0;
    if (auto entered = enter_guest_sandbox(root ? std::optional(user()) : std::nullopt); !entered) {
      return fail(
          entered.error().code,
          fmt::format("the process cannot give up its rights: {}; with sandbox = false in the "
                      "configuration it keeps them",
                      entered.error().message));
    }
    if (root) {
      log_info(kGuestLog, "runs as user {} from now on, in its sandbox", user().user);
    } else {
      log_info(kGuestLog, "runs in its sandbox from now on");
    }
    return {};
  }

  void listen() {
    auto socket = doors_->open_control_socket();
    if (socket) {
      server_ = ControlServer::serve(
          *control_, std::move(*socket), guest_socket_path(configuration_.run_directory, domain_),
          [this](const std::string& request, ControlServer::Reply reply) {
            answer(request, std::move(reply));
          });
      return;
    }
    log_limited(listen_log_, control_->now(), LogLevel::warning, kGuestLog,
                "no status for iscsi-blkctl: {}", socket.error().message);
    listen_timer_->start_after(kListenRetry);
  }

  // Its own, and the folder that its disks need.
  [[nodiscard]] bool files_are_in_place() const {
    return lock_->is_in_place() &&
           ::access(barrier_directory(configuration_.run_directory).c_str(), F_OK) == 0;
  }

  void look_at_lock() {
    const auto restored = files_are_in_place() ? Result<bool>(false) : doors_->restore(*lock_);
    if (!restored) {
      log_limited(lock_log_, control_->now(), LogLevel::error, kGuestLog,
                  "the file by which the service finds this process is gone: {}",
                  restored.error().message);
    } else if (*restored) {
      log_limited(lock_log_, control_->now(), LogLevel::warning, kGuestLog,
                  "somebody has removed the files of this process in {}: they are made anew",
                  configuration_.run_directory);
      server_.reset();  // which removes its socket's path
      listen();
    }
    lock_timer_->start_after(kLookAtLock);
  }

  void answer(const std::string& request, ControlServer::Reply reply) {
    const auto parsed = parse_guest_request(request);
    if (!parsed) {
      reply(control_refusal(parsed.error().message));
    } else if (const auto* change = std::get_if<DiskChange>(&*parsed)) {
      backend_->change(*change, [reply = std::move(reply)](const Result<void>& changed) {
        reply(control_answer(changed));
      });
    } else {
      backend_->query([reply = std::move(reply)](const GuestStatus& status) {
        reply(guest_status_line(status));
      });
    }
  }

  void terminate() {
    log_info(kGuestLog, "asked to end; disks stay attached and wait for the next process");
    terminate_timer_->start_after(kTerminateTimeout);
    backend_->stop();
  }

  [[noreturn]] static void give_up() {
    log_error(kGuestLog, "connections, or fences of lost writes, do not end in time, leaving them");
    ::_exit(1);
  }

  const Configuration& configuration_;
  DomainId domain_;
  DomainId own_domain_ = 0;
  std::optional<ProcessLock> lock_;
  std::unique_ptr<DomainInfo> domains_;
  std::unique_ptr<DomainInfo> sentry_domains_;  // until there is a sentry
  std::unique_ptr<GuestDoors> doors_;
  PortalResolver* portal_resolver_ = nullptr;
  std::optional<TimePoint> host_start_;  // in disorder
  std::string host_id_;
  std::unique_ptr<UringReactor> control_;
  std::deque<IoPart> io_;
  std::optional<Timer> terminate_timer_;
  std::optional<Timer> listen_timer_;
  std::optional<Timer> lock_timer_;
  LogLimiter listen_log_{kMessageLimit};
  LogLimiter lock_log_{kMessageLimit};
  StatisticsFolder statistics_{kSharedMemory, ::getpid()};
  std::unique_ptr<PathDiscovery> resolver_;
  std::optional<SpreadDataPlane> plane_;
  std::optional<SuspendSentry> sentry_;
  std::unique_ptr<GuestBackend> backend_;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace

Result<void> run_guest_process(const Configuration& configuration, DomainId domain) {
  // The service has started it by /proc/self/exe, which ps(1) would call "exe".
  (void)::prctl(PR_SET_NAME, "iscsi-blkback");
  set_log_prefix(fmt::format("guest {}", domain));
  close_descriptors_but({});  // what the process was started with
  set_log_budget(kGuestLogBudget);
  GuestProcess process(configuration, domain);
  if (auto opened = process.open(); !opened) {
    return opened;
  }
  log_info(kGuestLog, "serving domain {}", domain);
  auto ended = process.run();
  if (ended) {
    log_info(kGuestLog, "nothing left to serve");
  }
  return ended;
}

}  // namespace iscsi_blkback
