#include "blkback/process/guest_supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/decimal.h"
#include "blkback/guest/guest_nodes.h"
#include "blkback/guest/guest_run_state.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kKeeperLog = "service";

}  // namespace

struct GuestSupervisor::Guest {
  Guest(GuestSupervisor& owner, DomainId domain)
      : supervisor(owner),
        number(domain),
        restart_timer(
            owner.control_,
            [](void* self) noexcept {
              Guest& guest = *static_cast<Guest*>(self);
              guest.supervisor.due_.insert(guest.number);
              guest.supervisor.schedule_look();
            },
            this) {}

  GuestSupervisor& supervisor;
  DomainId number;
  pid_t pid = 0;
  bool adopted = false;
  std::uint32_t restarts = 0;
  TimePoint started{};
  std::chrono::milliseconds delay = kRestartMin;
  Timer restart_timer;
  LogLimiter log{kMessageLimit};  // what a guest whose process fails again and again causes
};

GuestSupervisor::GuestSupervisor(Reactor& control, StoreConnection::Factory open_store,
                                 GuestLauncher& launcher, DomainId own_domain, DomainInfo* domains)
    : control_(control),
      launcher_(launcher),
      own_domain_(own_domain),
      domains_(domains),
      connection_(control, std::move(open_store), kKeeperLog, all_log_, *this),
      look_timer_(
          control, [](void* self) noexcept { static_cast<GuestSupervisor*>(self)->look(); }, this) {
}

GuestSupervisor::~GuestSupervisor() = default;

Result<void> GuestSupervisor::start() {
  return connection_.open();
}

Result<void> GuestSupervisor::on_store_open(XenStore& store) {
  for (const BackendKind kind : kBackendKinds) {
    auto watched = store.watch(backend_kind_path(own_domain_, kind), to_string(kind));
    if (!watched) {
      return watched;
    }
  }
  all_due_ = true;
  schedule_look();
  return {};
}

// KIND's folder, then GUEST/DEVID/...: most events say which guest they are about.
void GuestSupervisor::on_store_event(const WatchEvent& event) {
  for (const BackendKind kind : kBackendKinds) {
    const std::string folder = backend_kind_path(own_domain_, kind) + "/";
    if (event.path.starts_with(folder)) {
      const std::string_view rest = std::string_view(event.path).substr(folder.size());
      if (const auto guest = parse_decimal<DomainId>(rest.substr(0, rest.find('/')))) {
        due_.insert(*guest);
      }
      schedule_look();
      return;
    }
  }
  all_due_ = true;
  schedule_look();
}

void GuestSupervisor::schedule_look() {
  const TimePoint due = std::max(control_.now(), last_look_ + kMinimumGap);
  if (!look_timer_.armed() || look_timer_.deadline() > due) {
    look_timer_.start_at(due);
  }
}

void GuestSupervisor::look_later() {
  if (!look_timer_.armed()) {
    look_timer_.start_after(kReadRetry);
  }
}

void GuestSupervisor::look() {
  last_look_ = control_.now();
  if (connection_.store() == nullptr) {
    return;
  }
  if (all_due_) {
    auto listed = listed_guests();
    if (listed) {
      all_due_ = false;
      due_.insert(listed->begin(), listed->end());
    } else {
      log_limited(read_log_, control_.now(), LogLevel::warning, kKeeperLog,
                  "the guests cannot be listed: {}", listed.error().message);
      look_later();
    }
  }
  for (const DomainId guest : std::exchange(due_, {})) {
    if (!look_at(guest)) {
      due_.insert(guest);
      look_later();
    }
  }
}

bool GuestSupervisor::look_at(DomainId number) {
  const auto found = guests_.find(number);
  const bool running = found != guests_.end() && found->second->pid != 0;
  const bool waiting = found != guests_.end() && found->second->restart_timer.armed();
  if (running || waiting) {
    return true;  // its process sees its new disks itself
  }
  const auto has_disk = has_disk_of_ours(number);
  if (!has_disk) {
    log_limited(read_log_, control_.now(), LogLevel::warning, kKeeperLog,
                "the disks of domain {} cannot be read: {}", number, has_disk.error().message);
    return false;
  }
  if (!*has_disk) {
    if (found != guests_.end()) {
      guests_.erase(found);
    }
    return true;
  }
  if (found != guests_.end()) {
    launch(*found->second);
    return true;
  }
  if (guests_.size() >= kMaxGuests) {
    log_limited(full_log_, control_.now(), LogLevel::error, kKeeperLog,
                "{} guests are served already, domain {} is not", kMaxGuests, number);
    return false;
  }
  launch(*guests_.emplace(number, std::make_unique<Guest>(*this, number)).first->second);
  return true;
}

Result<std::vector<DomainId>> GuestSupervisor::listed_guests() {
  std::vector<DomainId> guests;
  for (const auto& [number, guest] : guests_) {
    guests.push_back(number);
  }
  for (const BackendKind kind : kBackendKinds) {
    auto children = connection_.store()->list(backend_kind_path(own_domain_, kind));
    if (!children) {
      if (children.error().code == ErrorCode::not_found) {
        continue;
      }
      return tl::unexpected(children.error());
    }
    for (const std::string& child : *children) {
      if (const auto number = parse_decimal<DomainId>(child)) {
        guests.push_back(*number);
      }
    }
  }
  return guests;
}

Result<bool> GuestSupervisor::has_disk_of_ours(DomainId guest) {
  Result<bool> found = false;
  for (const BackendKind kind : kBackendKinds) {
    auto nodes = list_guest_nodes(*connection_.store(), own_domain_, kind, guest);
    if (!nodes) {
      if (!is_about_the_node(nodes.error().code)) {
        found = tl::unexpected(nodes.error());
      }
      continue;
    }
    for (const XenbusNodeId& id : *nodes) {
      auto disk = read_disk_of_ours(*connection_.store(), id);
      if (disk && *disk && !((*disk)->rests && has_ended(guest))) {
        return true;
      }
      if (!disk && !is_about_the_node(disk.error().code)) {
        found = tl::unexpected(disk.error());
      }
    }
  }
  return found;
}

// As far as Xen says so. A guest that has ended does not come back: what follows it has new nodes.
bool GuestSupervisor::has_ended(DomainId guest) {
  if (domains_ == nullptr) {
    return false;
  }
  const auto status = domains_->status(guest);
  return status && !life_after({}, {}, *status, false).runs;
}

void GuestSupervisor::launch(Guest& guest) {
  guest.started = control_.now();
  const auto adopted = launcher_.adopt(guest.number);
  if (adopted && *adopted) {
    guest.pid = **adopted;
    guest.adopted = true;
    log_limited(guest.log, guest.started, LogLevel::info, kKeeperLog,
                "domain {} is served by process {} already", guest.number, guest.pid);
    return;
  }
  auto pid = adopted ? launcher_.start(guest.number) : tl::unexpected(adopted.error());
  if (!pid) {
    log_limited(guest.log, guest.started, LogLevel::error, kKeeperLog,
                "domain {}: its process cannot be started: {}", guest.number, pid.error().message);
    wait_for_restart(guest);
    return;
  }
  guest.pid = *pid;
  guest.adopted = false;
  log_limited(guest.log, guest.started, LogLevel::info, kKeeperLog,
              "domain {} is served by process {}", guest.number, guest.pid);
}

void GuestSupervisor::on_exit(DomainId number, bool clean) {
  const auto found = guests_.find(number);
  if (found == guests_.end()) {
    return;
  }
  Guest& guest = *found->second;
  guest.pid = 0;
  if (!clean) {
    ++guest.restarts;
    log_limited(guest.log, control_.now(), LogLevel::error, kKeeperLog,
                "the process of domain {} has failed", number);
  }
  wait_for_restart(guest);
}

// Also after a clean end: a disk may have come in the very last moment, and if the process and we
// do not agree about what is there to serve, that must not spin.
void GuestSupervisor::wait_for_restart(Guest& guest) {
  if (control_.now() - guest.started >= kStableAfter) {
    guest.delay = kRestartMin;
  }
  guest.restart_timer.start_after(guest.delay);
  guest.delay = std::min(guest.delay * 2, kRestartMax);
}

std::vector<ServedGuest> GuestSupervisor::guests() const {
  std::vector<ServedGuest> served;
  for (const auto& [number, guest] : guests_) {
    served.push_back(ServedGuest{number, guest->pid, guest->restarts, guest->adopted});
  }
  return served;
}

}  // namespace iscsi_blkback
