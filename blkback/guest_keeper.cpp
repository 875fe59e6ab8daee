#include "blkback/guest_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/decimal.h"
#include "blkback/guest_nodes.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kKeeperLog = "service";

}  // namespace

struct GuestKeeper::Guest {
  Guest(GuestKeeper& owner, DomainId domain)
      : keeper(owner),
        number(domain),
        restart_timer(
            owner.control_,
            [](void* self) noexcept {
              Guest& guest = *static_cast<Guest*>(self);
              guest.keeper.due_.insert(guest.number);
              guest.keeper.schedule_look();
            },
            this) {}

  GuestKeeper& keeper;
  DomainId number;
  pid_t pid = 0;
  bool adopted = false;
  std::uint32_t restarts = 0;
  TimePoint started{};
  std::chrono::milliseconds delay = kRestartMin;
  Timer restart_timer;
};

GuestKeeper::GuestKeeper(Reactor& control, StoreConnection::Factory open_store,
                         GuestLauncher& launcher, DomainId own_domain)
    : control_(control),
      launcher_(launcher),
      own_domain_(own_domain),
      connection_(control, std::move(open_store), kKeeperLog, limiter_, *this),
      look_timer_(
          control, [](void* self) noexcept { static_cast<GuestKeeper*>(self)->look(); }, this) {}

GuestKeeper::~GuestKeeper() = default;

Result<void> GuestKeeper::start() {
  return connection_.open();
}

Result<void> GuestKeeper::on_store_open(XenStore& store) {
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
void GuestKeeper::on_store_event(const WatchEvent& event) {
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

void GuestKeeper::schedule_look() {
  const TimePoint due = std::max(control_.now(), last_look_ + kMinimumGap);
  if (!look_timer_.armed() || look_timer_.deadline() > due) {
    look_timer_.start_at(due);
  }
}

void GuestKeeper::look() {
  last_look_ = control_.now();
  if (connection_.store() == nullptr) {
    return;
  }
  if (all_due_) {
    auto listed = listed_guests();
    if (!listed) {
      log_limited(limiter_, control_.now(), LogLevel::warning, kKeeperLog,
                  "the guests cannot be listed: {}", listed.error().message);
      look_timer_.start_after(kListRetry);
      return;
    }
    all_due_ = false;
    due_.insert(listed->begin(), listed->end());
  }
  for (const DomainId guest : std::exchange(due_, {})) {
    look_at(guest);
  }
}

void GuestKeeper::look_at(DomainId number) {
  const auto found = guests_.find(number);
  const bool running = found != guests_.end() && found->second->pid != 0;
  const bool waiting = found != guests_.end() && found->second->restart_timer.armed();
  if (running || waiting) {
    return;  // its process sees its new disks itself
  }
  if (!has_disk_of_ours(number)) {
    if (found != guests_.end()) {
      guests_.erase(found);
    }
    return;
  }
  if (found != guests_.end()) {
    launch(*found->second);
    return;
  }
  if (guests_.size() >= kMaxGuests) {
    log_limited(limiter_, control_.now(), LogLevel::error, kKeeperLog,
                "{} guests are served already, domain {} is not", kMaxGuests, number);
    return;
  }
  launch(*guests_.emplace(number, std::make_unique<Guest>(*this, number)).first->second);
}

Result<std::vector<DomainId>> GuestKeeper::listed_guests() {
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

bool GuestKeeper::has_disk_of_ours(DomainId guest) {
  for (const BackendKind kind : kBackendKinds) {
    auto nodes = list_guest_nodes(*connection_.store(), own_domain_, kind, guest);
    if (!nodes) {
      continue;
    }
    for (const XenbusNodeId& id : *nodes) {
      if (auto disk = read_disk_of_ours(*connection_.store(), id); disk && *disk) {
        return true;
      }
    }
  }
  return false;
}

void GuestKeeper::launch(Guest& guest) {
  guest.started = control_.now();
  if (const auto pid = launcher_.adopt(guest.number)) {
    guest.pid = *pid;
    guest.adopted = true;
    log_info(kKeeperLog, "domain {} is served by process {} already", guest.number, guest.pid);
    return;
  }
  auto pid = launcher_.start(guest.number);
  if (!pid) {
    log_limited(limiter_, control_.now(), LogLevel::error, kKeeperLog,
                "domain {}: its process cannot be started: {}", guest.number, pid.error().message);
    wait_for_restart(guest);
    return;
  }
  guest.pid = *pid;
  guest.adopted = false;
  log_info(kKeeperLog, "domain {} is served by process {}", guest.number, guest.pid);
}

void GuestKeeper::on_exit(DomainId number, bool clean) {
  const auto found = guests_.find(number);
  if (found == guests_.end()) {
    return;
  }
  Guest& guest = *found->second;
  guest.pid = 0;
  if (!clean) {
    ++guest.restarts;
    log_error(kKeeperLog, "the process of domain {} has failed", number);
  }
  wait_for_restart(guest);
}

// Also after a clean end: a disk may have come in the very last moment, and if the process and we
// do not agree about what is there to serve, that must not spin.
void GuestKeeper::wait_for_restart(Guest& guest) {
  if (control_.now() - guest.started >= kSettled) {
    guest.delay = kRestartMin;
  }
  guest.restart_timer.start_after(guest.delay);
  guest.delay = std::min(guest.delay * 2, kRestartMax);
}

std::vector<ServedGuest> GuestKeeper::guests() const {
  std::vector<ServedGuest> served;
  for (const auto& [number, guest] : guests_) {
    served.push_back(ServedGuest{number, guest->pid, guest->restarts, guest->adopted});
  }
  return served;
}

}  // namespace iscsi_blkback
