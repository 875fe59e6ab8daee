#include "blkback/guest_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/decimal.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kXenbusLog = "xenbus";
constexpr int kMaxSteps = 16;  // of one disk in one look
constexpr std::size_t kMaxQueries = 32;
constexpr std::chrono::seconds kWriteRetry{1};
constexpr std::string_view kFrontendToken = "f/";  // + the disk's number
constexpr std::string_view kBackendToken = "b/";   // + the kind
constexpr const char* kDomainToken = "d";
constexpr const char* kReleaseDomain = "@releaseDomain";

}  // namespace

// How far the I/O side is with a disk.
enum class DevicePhase : std::uint8_t { none, resolving, open, closing };

struct GuestBackend::Disk {
  Disk(GuestBackend& owner, DiskHandle number, const XenbusNodeId& id, DiskDescription said)
      : backend(owner),
        handle(number),
        node(id),
        description(std::move(said)),
        retry_timer(owner.environment_.control, &Disk::on_retry, this),
        bound_timer(owner.environment_.control, &Disk::on_bound, this) {}

  static void on_retry(void* self) noexcept {
    Disk& disk = *static_cast<Disk*>(self);
    disk.backend.look_up(disk);
  }
  static void on_bound(void* self) noexcept {
    Disk& disk = *static_cast<Disk*>(self);
    disk.backend.on_bound(disk);
  }

  GuestBackend& backend;
  DiskHandle handle;
  XenbusNode node;
  DiskDescription description;
  XenbusStates states;  // as last read
  bool dirty = true;
  bool announced = false;
  bool wrote_closed = false;
  bool refused = false;       // the target can never be used as it is written
  bool hide_params = false;   // they may hold a secret
  bool ring_refused = false;  // until the frontend starts anew
  bool reopen = false;        // when the device is closed
  bool close_overdue = false;
  DevicePhase device = DevicePhase::none;
  RingPhase ring = RingPhase::idle;
  std::optional<Geometry> geometry;  // device ready
  std::string hotplug_error;
  std::string written_error;  // what hotplug-error says in xenstore
  bool written_connected = false;
  DiskPlan plan;
  std::chrono::milliseconds retry_delay = kRetryMin;
  Timer retry_timer;
  Timer bound_timer;  // of a drain or a close
};

struct GuestBackend::Query {
  Query(GuestBackend& owner, std::function<void(GuestStatus)> callback)
      : backend(owner),
        done(std::move(callback)),
        timer(owner.environment_.control, &Query::on_timeout, this) {}
  static void on_timeout(void* self) noexcept {
    Query& query = *static_cast<Query*>(self);
    query.backend.answer(query, nullptr);
  }

  GuestBackend& backend;
  std::uint64_t number = 0;
  std::function<void(GuestStatus)> done;
  Timer timer;
};

GuestBackend::GuestBackend(Environment environment, const Configuration& configuration,
                           DomainId own_domain, DomainId guest, std::function<void()> on_finished)
    : environment_(std::move(environment)),
      configuration_(configuration),
      own_domain_(own_domain),
      guest_(guest),
      on_finished_(std::move(on_finished)),
      look_timer_(
          environment_.control,
          [](void* self) noexcept { static_cast<GuestBackend*>(self)->look(); }, this),
      reopen_timer_(
          environment_.control,
          [](void* self) noexcept { static_cast<GuestBackend*>(self)->reopen_store(); }, this) {
  environment_.data_plane.set_events(this);
}

GuestBackend::~GuestBackend() {
  environment_.data_plane.set_events(nullptr);
}

Result<void> GuestBackend::start() {
  return open_store();
}

void GuestBackend::stop() {
  if (std::exchange(stopping_, true)) {
    return;
  }
  look_timer_.stop();
  reopen_timer_.stop();
  for (auto& [handle, disk] : disks_) {
    disk->retry_timer.stop();
    disk->bound_timer.stop();
    disk->reopen = false;
    if (disk->device == DevicePhase::open) {
      // Leaves the ring, if there is one, and closes the device with it.
      environment_.data_plane.disconnect_ring(handle, true);
      disk->device = DevicePhase::closing;
    }
    if (disk->device == DevicePhase::closing) {
      retired_.emplace(handle, std::move(disk));
    }
  }
  disks_.clear();
  finish_if_done();
}

// ---- xenstore's connection ----

Result<void> GuestBackend::open_store() {
  auto store = environment_.open_store();
  if (!store) {
    return tl::unexpected(store.error());
  }
  for (const BackendKind kind : kBackendKinds) {
    auto watched = (*store)->watch(backend_guest_path(own_domain_, kind, guest_),
                                   std::string(kBackendToken) + to_string(kind));
    if (!watched) {
      return watched;
    }
  }
  if (auto watched = (*store)->watch(kReleaseDomain, kDomainToken); !watched) {
    log_warning(kXenbusLog, "the end of the guest cannot be watched for, only its disks' nodes: {}",
                watched.error().message);
  }
  store_ = std::move(*store);
  store_watch_ = environment_.control.watch_readable(
      store_->fd(), [](void* self) noexcept { static_cast<GuestBackend*>(self)->take_events(); },
      this);
  for (auto& [handle, disk] : disks_) {
    watch_frontend(*disk);
    disk->dirty = true;
  }
  scan_due_ = true;
  domain_check_due_ = true;
  schedule_look();
  return {};
}

void GuestBackend::reopen_store() {
  if (auto opened = open_store(); !opened) {
    log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "xenstore cannot be reached: {}", opened.error().message);
    reopen_timer_.start_after(kReopenInterval);
  }
}

void GuestBackend::lose_store(const Error& why) {
  if (stopping_) {
    store_watch_.reset();
    return;
  }
  log_warning(kXenbusLog, "the connection to xenstore is lost, disks go on being served: {}",
              why.message);
  store_watch_.reset();
  store_.reset();
  reopen_timer_.start_after(kReopenInterval);
}

void GuestBackend::watch_frontend(Disk& disk) {
  auto watched = store_->watch(disk.description.frontend_path + "/state",
                               fmt::format("{}{}", kFrontendToken, disk.handle));
  if (!watched) {
    log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: the frontend cannot be watched: {}", disk.node.id().name(),
                watched.error().message);
  }
}

void GuestBackend::take_events() {
  for (std::size_t count = 0; count < kMaxEventsPerTurn; ++count) {
    auto event = store_->next_event();
    if (!event) {
      lose_store(event.error());
      return;
    }
    if (!*event) {
      return;
    }
    note_event(**event);
  }
}

void GuestBackend::note_event(const WatchEvent& event) {
  const std::string_view token = event.token;
  if (token == kDomainToken) {
    domain_check_due_ = true;
  } else if (token.starts_with(kFrontendToken)) {
    const auto handle = parse_decimal<DiskHandle>(token.substr(kFrontendToken.size()));
    if (Disk* disk = handle ? find(*handle) : nullptr) {
      disk->dirty = true;
    }
  } else {
    // Below our node of this guest; without a disk of ours it may be a new one.
    bool known = false;
    for (auto& [handle, disk] : disks_) {
      const std::string& path = disk->node.path();
      const bool concerns = event.path.starts_with(path) &&
                            (event.path.size() == path.size() || event.path[path.size()] == '/');
      known = known || concerns;
      disk->dirty = disk->dirty || concerns;
    }
    scan_due_ = scan_due_ || !known;
  }
  schedule_look();
}

// ---- looking ----

void GuestBackend::schedule_look() {
  if (stopping_) {
    return;
  }
  const TimePoint now = environment_.control.now();
  const TimePoint due = std::max(now, last_look_ + kMinimumGap);
  if (!look_timer_.armed() || look_timer_.deadline() > due) {
    look_timer_.start_at(due);
  }
}

void GuestBackend::look_again_later() {
  if (!look_timer_.armed() && !stopping_) {
    look_timer_.start_after(kWriteRetry);
  }
}

void GuestBackend::look() {
  last_look_ = environment_.control.now();
  if (store_ == nullptr || finished_) {
    return;
  }
  if (std::exchange(domain_check_due_, false)) {
    check_domain();
  }
  if (std::exchange(scan_due_, false)) {
    scan();
  }
  std::vector<DiskHandle> dirty;
  for (auto& [handle, disk] : disks_) {
    if (std::exchange(disk->dirty, false)) {
      dirty.push_back(handle);
    }
  }
  for (const DiskHandle handle : dirty) {
    if (Disk* disk = find(handle)) {
      advance(*disk);
    }
  }
  finish_if_done();
}

void GuestBackend::check_domain() {
  bool runs = true;
  bool suspended = false;
  if (environment_.domains != nullptr) {
    auto status = environment_.domains->status(guest_);
    if (!status) {
      log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "the state of domain {} is not known: {}", guest_, status.error().message);
      return;
    }
    switch (status->life) {
      case DomainLife::running:
        break;
      case DomainLife::shut_down:
        suspended = status->shutdown_reason == ShutdownReason::suspend;
        runs = suspended || status->shutdown_reason == ShutdownReason::soft_reset;
        break;
      case DomainLife::dying:
      case DomainLife::gone:
        runs = false;
        break;
    }
  } else {
    auto nodes = store_->list(fmt::format("/local/domain/{}", guest_));
    runs = nodes || nodes.error().code != ErrorCode::not_found;
  }
  if (suspended != suspended_) {
    suspended_ = suspended;
    log_info(kXenbusLog, "the guest {}", suspended ? "is suspended" : "goes on");
    environment_.data_plane.set_suspended(suspended);
  }
  if (suspended) {
    // Nothing in xenstore changes when a suspended domain is resumed where it is.
    domain_check_due_ = true;
    look_again_later();
  }
  if (guest_runs_ && !runs) {
    guest_runs_ = false;  // for good: only a suspended domain comes back
    log_info(kXenbusLog, "the guest has ended");
    for (auto& [handle, disk] : disks_) {
      disk->dirty = true;
      if (disk->device == DevicePhase::closing) {
        environment_.data_plane.close_device(handle, true);
      }
    }
    for (auto& [handle, disk] : retired_) {
      environment_.data_plane.close_device(handle, true);
    }
  }
}

void GuestBackend::scan() {
  for (const BackendKind kind : kBackendKinds) {
    auto children = store_->list(backend_guest_path(own_domain_, kind, guest_));
    if (!children) {
      if (children.error().code != ErrorCode::not_found) {
        log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                    "the disks of domain {} cannot be listed: {}", guest_,
                    children.error().message);
      }
      continue;
    }
    for (const std::string& child : *children) {
      const auto device_id = parse_decimal<std::uint32_t>(child);
      if (!device_id) {
        continue;
      }
      const XenbusNodeId id{kind, own_domain_, guest_, *device_id};
      const bool known = std::any_of(disks_.begin(), disks_.end(), [&](const auto& entry) {
        return entry.second->node.id().kind == kind &&
               entry.second->node.id().device_id == *device_id;
      });
      if (!known) {
        adopt(id);
      }
    }
  }
}

void GuestBackend::adopt(const XenbusNodeId& id) {
  const XenbusNode node(id);
  auto description = node.read_description(*store_);
  if (!description) {
    if (description.error().code != ErrorCode::not_found) {
      log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "{}: the node cannot be used: {}", id.name(), description.error().message);
    }
    return;
  }
  if (!is_iscsi_params(description->params)) {
    return;
  }
  auto states = node.read_states(*store_, description->frontend_path);
  if (!states || !should_adopt(states->backend, states->frontend, states->online)) {
    return;
  }
  if (disks_.size() == kMaxDisks) {
    log_limited(limiter_, environment_.control.now(), LogLevel::error, kXenbusLog,
                "{}: the guest has {} disks already, no more are served", id.name(), kMaxDisks);
    return;
  }
  const DiskHandle handle = next_handle_++;
  auto disk = std::make_unique<Disk>(*this, handle, id, std::move(*description));
  log_info(kXenbusLog, "{}: serving {}", id.name(), disk->description.virtual_device);
  watch_frontend(*disk);
  disks_.emplace(handle, std::move(disk));
}

void GuestBackend::advance(Disk& disk) {
  for (int step = 0; step < kMaxSteps; ++step) {
    auto states = disk.node.read_states(*store_, disk.description.frontend_path);
    if (!states) {
      (void)wrote(disk, tl::unexpected(states.error()), "read");
      return;
    }
    disk.states = *states;
    XenbusView view;
    view.frontend = states->frontend;
    view.backend = states->backend;
    view.online = states->online;
    view.announced = disk.announced;
    view.wrote_closed = disk.wrote_closed;
    view.guest_runs = guest_runs_;
    view.device_ready = disk.device == DevicePhase::open && disk.geometry.has_value();
    view.device_open = disk.device == DevicePhase::open;
    view.device_closing = disk.device == DevicePhase::closing && !disk.close_overdue;
    view.refused = disk.refused || disk.ring_refused;
    view.ring = disk.ring;
    const XenbusAction action = next_action(view);
    if (action != XenbusAction::none) {
      log_debug(kXenbusLog, "{}: frontend {}, backend {}{}: {}", disk.node.id().name(),
                to_string(view.frontend), to_string(view.backend), view.online ? "" : ", offline",
                to_string(action));
    }
    if (!perform(disk, action, *states)) {
      return;
    }
  }
  disk.dirty = true;
  look_again_later();
}

// False: nothing more to look at now (the disk may be gone).
bool GuestBackend::perform(Disk& disk, XenbusAction action, const XenbusStates& states) {
  switch (action) {
    case XenbusAction::none:
      return false;
    case XenbusAction::announce:
      return announce(disk, states.backend);
    case XenbusAction::connect:
      return connect(disk);
    case XenbusAction::publish:
      return publish(disk, states.backend);
    case XenbusAction::write_closing:
      return wrote(disk, disk.node.write_state(*store_, states.backend, XenbusState::closing),
                   "state");
    case XenbusAction::disconnect: {
      const bool closed_by_toolstack = states.backend == XenbusState::closed && !disk.wrote_closed;
      const bool removed = states.backend == XenbusState::unknown ||
                           (states.frontend == XenbusState::unknown && !states.online);
      disconnect(disk, !guest_runs_ || closed_by_toolstack || removed);
      return true;
    }
    case XenbusAction::close_device:
      close_device(disk, !guest_runs_);
      return true;
    case XenbusAction::write_closed: {
      const bool written =
          wrote(disk, disk.node.write_state(*store_, states.backend, XenbusState::closed), "state");
      disk.wrote_closed = disk.wrote_closed || written;
      return written;
    }
    case XenbusAction::finish:
      if (own_domain_ != 0 && states.backend == XenbusState::closed) {
        if (auto removed = disk.node.remove(*store_); !removed) {
          log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                      "{}: the node cannot be removed: {}", disk.node.id().name(),
                      removed.error().message);
        }
      }
      forget(disk, false);
      return false;
    case XenbusAction::replace:
      forget(disk, true);
      return false;
  }
  return false;
}

// A write that came too late because somebody changed the state is no failure: the next look sees
// the new one.
bool GuestBackend::wrote(Disk& disk, const Result<void>& result, const char* what) {
  if (result) {
    return true;
  }
  if (result.error().code == ErrorCode::conflict) {
    disk.dirty = true;
    schedule_look();
    return false;
  }
  log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
              "{}: xenstore refuses ({}): {}", disk.node.id().name(), what, result.error().message);
  disk.dirty = true;
  look_again_later();
  return false;
}

// ---- actions ----

bool GuestBackend::announce(Disk& disk, XenbusState now) {
  XenbusNode::Entries entries = XenbusNode::capabilities(configuration_.max_ring_page_order);
  entries.emplace_back("state", std::to_string(static_cast<unsigned>(XenbusState::init_wait)));
  if (!wrote(disk, disk.node.write(*store_, now, entries), "capabilities")) {
    return false;
  }
  disk.announced = true;
  disk.wrote_closed = false;
  disk.ring_refused = false;
  prepare_device(disk);
  return true;
}

void GuestBackend::prepare_device(Disk& disk) {
  if (disk.device != DevicePhase::none || disk.refused) {
    return;
  }
  auto target = parse_disk_target(disk.description.params);
  if (!target) {
    disk.refused = disk.hide_params = true;
    set_error(disk, target.error().message);
    return;
  }
  auto plan = plan_disk(*target, configuration_, disk.description.virtual_device,
                        disk.description.read_only);
  if (!plan) {
    disk.refused = true;
    set_error(disk, plan.error().message);
    return;
  }
  disk.plan = std::move(*plan);
  disk.device = DevicePhase::resolving;
  look_up(disk);
}

void GuestBackend::look_up(Disk& disk) {
  environment_.resolver.resolve(disk.plan,
                                [this, handle = disk.handle](Result<ResolvedDisk> result) {
                                  on_resolved(handle, std::move(result));
                                });
}

void GuestBackend::on_resolved(DiskHandle handle, Result<ResolvedDisk> result) {
  Disk* disk = find(handle);
  if (disk == nullptr) {
    return;
  }
  const bool wanted = disk->device == DevicePhase::resolving || disk->device == DevicePhase::open;
  if (!wanted) {
    return;
  }
  if (!result) {
    if (disk->device == DevicePhase::resolving) {
      set_error(*disk, result.error().message);
    }
    retry_later(*disk);
    return;
  }
  if (!result->trouble.empty()) {
    log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: some portals cannot be used yet: {}", disk->node.id().name(), result->trouble);
    retry_later(*disk);
  }
  if (disk->device == DevicePhase::open) {
    environment_.data_plane.add_portals(handle, std::move(result->specification.portals));
    return;
  }
  disk->device = DevicePhase::open;
  environment_.data_plane.open_device(handle, std::move(result->specification));
}

void GuestBackend::retry_later(Disk& disk) {
  disk.retry_timer.start_after(disk.retry_delay);
  disk.retry_delay = std::min(disk.retry_delay * 2, kRetryMax);
}

bool GuestBackend::connect(Disk& disk) {
  auto ring = disk.node.read_ring(*store_, disk.description.frontend_path,
                                  configuration_.max_ring_page_order);
  if (!ring) {
    if (ring.error().code != ErrorCode::invalid_argument) {
      return wrote(disk, tl::unexpected(ring.error()), "ring");
    }
    disk.ring_refused = true;
    set_error(disk, ring.error().message);
    return true;
  }
  disk.ring = RingPhase::connecting;
  environment_.data_plane.connect_ring(disk.handle, guest_, std::move(*ring));
  return true;
}

bool GuestBackend::publish(Disk& disk, XenbusState now) {
  ISCSI_BLKBACK_ASSERT(disk.geometry.has_value());
  const XenbusNode::Entries sizes = XenbusNode::sizes(*disk.geometry, disk.description);
  if (!wrote(disk, disk.node.write(*store_, now, sizes), "sizes") ||
      !wrote(disk, disk.node.write_state(*store_, now, XenbusState::connected), "state")) {
    return false;
  }
  log_info(kXenbusLog, "{}: connected, {} sectors{}", disk.node.id().name(),
           disk.geometry->sector_count, disk.geometry->read_only ? ", read-only" : "");
  return true;
}

void GuestBackend::disconnect(Disk& disk, bool abandon) {
  disk.ring = RingPhase::disconnecting;
  if (abandon && disk.device == DevicePhase::open) {
    disk.device = DevicePhase::closing;  // the I/O side begins with it at once
    disk.retry_timer.stop();
    disk.bound_timer.start_after(kCloseTimeout);
  } else {
    disk.bound_timer.start_after(kDrainTimeout);
  }
  environment_.data_plane.disconnect_ring(disk.handle, abandon);
}

void GuestBackend::close_device(Disk& disk, bool abandon) {
  disk.device = DevicePhase::closing;
  disk.close_overdue = false;
  disk.retry_timer.stop();
  disk.bound_timer.start_after(kCloseTimeout);
  environment_.data_plane.close_device(disk.handle, abandon);
}

void GuestBackend::on_bound(Disk& disk) {
  if (disk.device == DevicePhase::closing) {
    disk.close_overdue = true;
    disk.dirty = true;
    schedule_look();
  } else if (disk.ring == RingPhase::disconnecting && disk.device == DevicePhase::open) {
    log_warning(kXenbusLog, "{}: the last requests of a closed ring do not end, giving them up",
                disk.node.id().name());
    disk.reopen = true;
    close_device(disk, false);
  }
}

void GuestBackend::forget(Disk& disk, bool rescan) {
  log_info(kXenbusLog, "{}: no longer serving {}", disk.node.id().name(),
           disk.description.virtual_device);
  store_->unwatch(disk.description.frontend_path + "/state",
                  fmt::format("{}{}", kFrontendToken, disk.handle));
  if (disk.device == DevicePhase::open) {
    close_device(disk, true);
  }
  disk.retry_timer.stop();
  disk.bound_timer.stop();
  auto entry = disks_.extract(disk.handle);
  if (disk.device == DevicePhase::closing) {
    disk.reopen = false;
    retired_.insert(std::move(entry));
  }
  if (rescan) {
    scan_due_ = true;
    schedule_look();
  }
}

void GuestBackend::set_error(Disk& disk, const std::string& sentence) {
  if (disk.hotplug_error != sentence && !sentence.empty()) {
    log_limited(limiter_, environment_.control.now(), LogLevel::error, kXenbusLog, "{} ({}): {}",
                disk.node.id().name(), disk.description.virtual_device, sentence);
  }
  disk.hotplug_error = sentence;
  write_hotplug(disk);
}

void GuestBackend::write_hotplug(Disk& disk) {
  const bool connected = disk.geometry.has_value();
  if (store_ == nullptr ||
      (disk.written_error == disk.hotplug_error && disk.written_connected == connected)) {
    return;
  }
  auto written = disk.node.write_hotplug(*store_, connected, disk.hotplug_error);
  if (!written) {
    log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: hotplug-status cannot be written: {}", disk.node.id().name(),
                written.error().message);
    return;
  }
  disk.written_error = disk.hotplug_error;
  disk.written_connected = connected;
}

// ---- events of the I/O side ----

void GuestBackend::on_device_ready(DiskHandle handle, const Geometry& geometry) {
  Disk* disk = find(handle);
  if (disk == nullptr || disk->device != DevicePhase::open) {
    return;
  }
  disk->geometry = geometry;
  disk->retry_delay = kRetryMin;
  set_error(*disk, "");
  disk->dirty = true;
  schedule_look();
}

void GuestBackend::on_device_trouble(DiskHandle handle, const std::string& why) {
  Disk* disk = find(handle);
  if (disk != nullptr && disk->device == DevicePhase::open && !disk->geometry) {
    set_error(*disk, why);
  }
}

void GuestBackend::on_ring_connected(DiskHandle handle, const Result<void>& result) {
  Disk* disk = find(handle);
  if (disk == nullptr || disk->ring != RingPhase::connecting) {
    return;
  }
  disk->ring = result ? RingPhase::connected : RingPhase::idle;
  if (!result) {
    disk->ring_refused = true;
    set_error(*disk, result.error().message);
  } else if (!disk->hotplug_error.empty()) {
    set_error(*disk, "");  // of an earlier ring
  }
  disk->dirty = true;
  schedule_look();
}

void GuestBackend::on_ring_broken(DiskHandle handle, const std::string& why) {
  Disk* disk = find(handle);
  if (disk == nullptr || disk->ring != RingPhase::connected) {
    return;
  }
  set_error(*disk, why);
  disconnect(*disk, false);
}

void GuestBackend::on_ring_disconnected(DiskHandle handle) {
  Disk* disk = find(handle);
  if (disk == nullptr) {
    return;
  }
  disk->ring = RingPhase::idle;
  if (disk->device == DevicePhase::open) {
    disk->bound_timer.stop();
  }
  disk->dirty = true;
  schedule_look();
}

void GuestBackend::on_device_closed(DiskHandle handle) {
  if (retired_.erase(handle) != 0) {
    finish_if_done();
    return;
  }
  Disk* disk = find(handle);
  if (disk == nullptr) {
    return;
  }
  disk->device = DevicePhase::none;
  disk->close_overdue = false;
  disk->geometry.reset();
  disk->written_connected = false;
  disk->bound_timer.stop();
  if (std::exchange(disk->reopen, false)) {
    prepare_device(*disk);
  }
  disk->dirty = true;
  schedule_look();
}

// ---- status ----

void GuestBackend::query(std::function<void(GuestStatus)> done) {
  auto query = std::make_unique<Query>(*this, std::move(done));
  Query& added = *query;
  added.number = next_query_++;
  queries_.push_back(std::move(query));
  if (queries_.size() > kMaxQueries) {
    added.timer.start_after(Duration::zero());
    return;
  }
  added.timer.start_after(kQueryTimeout);
  environment_.data_plane.query([this, number = added.number](std::vector<DiskReport> reports) {
    for (auto& waiting : queries_) {
      if (waiting->number == number) {
        answer(*waiting, &reports);
        return;
      }
    }
  });
}

void GuestBackend::answer(Query& query, std::vector<DiskReport>* reports) {
  GuestStatus status;
  status.guest = guest_;
  status.complete = reports != nullptr;
  for (auto& [handle, disk] : disks_) {
    DiskStatus& added = status.disks.emplace_back();
    added.node = disk->node.id();
    added.virtual_device = disk->description.virtual_device;
    added.params = disk->hide_params ? "iscsi:(not shown)" : disk->description.params;
    added.read_only = disk->description.read_only;
    added.backend_state = disk->states.backend;
    added.frontend_state = disk->states.frontend;
    added.hotplug_error = disk->hotplug_error;
    for (std::size_t at = 0; reports != nullptr && at < reports->size(); ++at) {
      if ((*reports)[at].disk == handle) {
        added.report = std::move((*reports)[at]);
        break;
      }
    }
  }
  const std::function<void(GuestStatus)> done = std::move(query.done);
  std::erase_if(queries_, [&](const auto& other) { return other.get() == &query; });
  done(std::move(status));
}

GuestBackend::Disk* GuestBackend::find(DiskHandle handle) {
  const auto found = disks_.find(handle);
  return found == disks_.end() ? nullptr : found->second.get();
}

void GuestBackend::finish_if_done() {
  const bool none_expected = stopping_ || (!scan_due_ && store_ != nullptr);
  if (!finished_ && disks_.empty() && retired_.empty() && none_expected) {
    finished_ = true;
    look_timer_.stop();
    on_finished_();
  }
}

}  // namespace iscsi_blkback
