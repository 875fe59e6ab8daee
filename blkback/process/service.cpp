#include "blkback/process/service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/json_text.h"
#include "base/log.h"
#include "base/process_signals.h"
#include "base/unique_fd.h"
#include "base/uring_reactor.h"
#include "base/version.h"
#include "blkback/control/control_protocol.h"
#include "blkback/guest/log_limits.h"
#include "blkback/guest/statistics_folder.h"
#include "blkback/process/control_request.h"
#include "blkback/process/control_server.h"
#include "blkback/process/guest_supervisor.h"
#include "blkback/process/host_end.h"
#include "blkback/process/own_domain.h"
#include "blkback/process/process_lock.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/xenstore.h"
#include "multipath/fencing/barrier_use.h"

extern char** environ;

namespace iscsi_blkback {
namespace {

constexpr const char* kServiceLog = "service";

// systemd's readiness protocol (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names.
void notify_systemd(std::string_view message) {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  const std::size_t length = path == nullptr ? 0 : std::strlen(path);
  if (length == 0 || length >= sizeof address.sun_path) {
    return;
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, length);
  if (address.sun_path[0] == '@') {
    address.sun_path[0] = '\0';  // an abstract socket
  }
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (!socket.valid() || ::sendto(socket.get(), message.data(), message.size(), MSG_NOSIGNAL,
                                  reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    log_warning(kServiceLog, "systemd cannot be told that the service runs");
  }
}

// Starts this very program again for a guest, and hears of the end of such processes by their
// pidfds.
class ProcessLauncher final : public GuestLauncher {
 public:
  ProcessLauncher(Reactor& control, const Configuration& configuration,
                  const ServiceOptions& options)
      : control_(control),
        run_directory_(configuration.run_directory),
        log_level_(configuration.log_level),
        configuration_path_(options.configuration_path) {}

  void set_keeper(GuestSupervisor& supervisor) { supervisor_ = &supervisor; }

  Result<pid_t> start(DomainId guest) override {
    std::vector<std::string> arguments = {"iscsi-blkback",   "--guest",      std::to_string(guest),
                                          "--run-directory", run_directory_, "--log-level",
                                          log_level_};
    if (!configuration_path_.empty()) {
      arguments.insert(arguments.end(), {"--config", configuration_path_});
    }
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) {
      pointers.push_back(argument.data());
    }
    pointers.push_back(nullptr);

    // Its own session, default signals, and none of our descriptors but the standard ones.
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(
        &attributes,
        static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID));
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    pid_t pid = 0;
    const int failure =
        ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, pointers.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failure != 0) {
      return tl::unexpected(system_error("starting /proc/self/exe", failure));
    }
    if (auto watched = watch(guest, pid); !watched) {
      ::kill(pid, SIGKILL);  // unwatched it would serve without anybody knowing
      ::waitpid(pid, nullptr, 0);
      return tl::unexpected(watched.error());
    }
    return pid;
  }

  Result<std::optional<pid_t>> adopt(DomainId guest) override {
    const std::string path = guest_lock_path(run_directory_, guest);
    auto pid = ProcessLock::holder(path);
    if (!pid || !*pid) {
      return pid;
    }
    if (auto watched = watch(guest, **pid); !watched) {
      return tl::unexpected(watched.error());
    }
    // Looked at again once it is watched: the pid may have ended, and be another's, in between.
    auto again = ProcessLock::holder(path);
    if (!again || *again != *pid) {
      processes_.erase(guest);
      return again ? Result<std::optional<pid_t>>(std::nullopt) : std::move(again);
    }
    return pid;
  }

 private:
  struct Process {
    ProcessLauncher* launcher = nullptr;
    DomainId guest = 0;
    pid_t pid = 0;
    UniqueFd pidfd;
    std::unique_ptr<FdWatch> watch;
  };

  Result<void> watch(DomainId guest, pid_t pid) {
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd.valid()) {
      return tl::unexpected(system_error("watching a process", errno));
    }
    auto process = std::make_unique<Process>();
    process->launcher = this;
    process->guest = guest;
    process->pid = pid;
    process->pidfd = std::move(pidfd);
    process->watch = control_.watch_readable(
        process->pidfd.get(),
        [](void* self) noexcept {
          Process& ended = *static_cast<Process*>(self);
          ended.launcher->on_end(ended);
        },
        process.get());
    processes_[guest] = std::move(process);
    return {};
  }

  void on_end(Process& process) {
    int status = 0;
    const pid_t reaped = ::waitpid(process.pid, &status, WNOHANG);
    if (reaped == 0) {
      return;
    }
    // An adopted process is nobody's child here: how it ended is not known.
    const bool clean = reaped < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (reaped > 0 && WIFSIGNALED(status)) {
      log_limited(signal_log_, control_.now(), LogLevel::error, kServiceLog,
                  "process {} of domain {} was ended by signal {}", process.pid, process.guest,
                  WTERMSIG(status));
    }
    // From now on nothing of it is sent: what its disks have left at their targets is harmless so
    // much sooner.
    note_death_in_barriers(barrier_directory(run_directory_), process.pid, control_.now());
    remove_statistics_left_by(process.pid);
    const DomainId guest = process.guest;
    processes_.erase(guest);
    supervisor_->on_exit(guest, clean);
  }

  Reactor& control_;
  std::string run_directory_;
  std::string log_level_;
  std::string configuration_path_;
  LogLimiter signal_log_{kGuestLogLimit};
  GuestSupervisor* supervisor_ = nullptr;
  std::map<DomainId, std::unique_ptr<Process>> processes_;
};

std::string status_line(const GuestSupervisor& supervisor, DomainId own_domain) {
  nlohmann::json guests = nlohmann::json::array();
  for (const ServedGuest& guest : supervisor.guests()) {
    guests.push_back({{"domid", guest.guest},
                      {"pid", guest.pid},
                      {"state", guest.pid == 0 ? "waiting" : "serving"},
                      {"restarts", guest.restarts},
                      {"adopted", guest.adopted}});
  }
  return json_text({{"ok", true},
                    {"type", "service"},
                    {"version", kVersion},
                    {"domid", own_domain},
                    {"pid", ::getpid()},
                    {"guests", std::move(guests)}});
}

// A guest's process may have a disk yet to come, or one that is only read.
BarrierUse use_of_disks(const std::string& run_directory, TimePoint now) {
  const BarrierUse use = use_of_barriers(barrier_directory(run_directory), now);
  return use == BarrierUse::none && any_guest_is_served(run_directory) ? BarrierUse::ending : use;
}

// Those of guests that have just ended, as when the host is shut down, have a moment.
BarrierUse await_end_of_disks(const std::string& run_directory, TimePoint now) {
  constexpr std::chrono::milliseconds kLook{50};
  constexpr std::chrono::seconds kPatience{3};
  BarrierUse use = use_of_disks(run_directory, now);
  for (Duration waited{}; use == BarrierUse::ending && waited < kPatience; waited += kLook) {
    std::this_thread::sleep_for(kLook);
    use = use_of_disks(run_directory, now + waited);
  }
  return use;
}

}  // namespace

Result<void> run_service(const Configuration& configuration, const ServiceOptions& options) {
  set_log_budget(kServiceLogBudget);
  auto own_domain = read_own_domain();
  if (!own_domain) {
    return tl::unexpected(own_domain.error());
  }
  // Only to say at once what every guest's process would fail with.
  if (auto grants = open_grant_table(); !grants) {
    return tl::unexpected(grants.error());
  }
  if (auto channels = open_event_channels(); !channels) {
    return tl::unexpected(channels.error());
  }
  auto lock =
      ProcessLock::acquire(service_lock_path(configuration.run_directory), "the service is run");
  if (!lock) {
    return tl::unexpected(lock.error());
  }
  auto control = UringReactor::create();
  if (!control) {
    return tl::unexpected(control.error());
  }
  auto signals = ProcessSignals::create(
      **control, [](void* reactor) noexcept { static_cast<UringReactor*>(reactor)->stop(); },
      control->get());
  if (!signals) {
    return tl::unexpected(signals.error());
  }
  const HostEndFolders folders{configuration.run_directory, configuration.state_directory};
  remove_statistics_left();  // by guests' processes that ended while no service ran
  // Before any guest's process asks.
  const bool after_an_end_in_order = host_had_ended_in_order(folders, host_boot_id());
  ProcessLauncher launcher(**control, configuration, options);
  const auto domains = open_domain_info_when_asked();
  GuestSupervisor supervisor(
      **control, [] { return open_xenstore(); }, launcher, *own_domain, domains.get());
  launcher.set_keeper(supervisor);
  if (auto started = supervisor.start(); !started) {
    return started;
  }
  auto server = ControlServer::listen(
      **control, service_socket_path(configuration.run_directory),
      [&supervisor, own = *own_domain](const std::string& request,
                                       const ControlServer::Reply& reply) {
        const auto status = parse_service_request(request);
        reply(status ? status_line(supervisor, own) : control_refusal(status.error().message));
      });
  if (!server) {
    return tl::unexpected(server.error());
  }
  log_info(kServiceLog, "version {} serves domain {}'s disks", kVersion, *own_domain);
  notify_systemd("READY=1");
  (*control)->run();
  notify_systemd("STOPPING=1");
  switch (await_end_of_disks(configuration.run_directory, (*control)->now())) {
    case BarrierUse::none:
      mark_end_in_order(folders, {after_an_end_in_order, host_uptime()},
                        longest_quiesce_time(configuration));
      log_info(kServiceLog, "ends; no disk is served");
      break;
    case BarrierUse::ending:
      log_info(kServiceLog, "ends; guests' processes are about to end, or have left writes behind");
      break;
    case BarrierUse::running:
      log_info(kServiceLog, "ends; the guests' processes go on serving");
      break;
  }
  return {};
}

}  // namespace iscsi_blkback
