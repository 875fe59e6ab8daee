#include "blkback/guest_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/decimal.h"
#include "blkback/guest_life.h"
#include "blkback/guest_nodes.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::seconds kWriteRetry{1};
constexpr std::string_view kFrontendToken = "f/";  // + the disk's number
constexpr std::string_view kBackendToken = "b/";   // + the kind
constexpr const char* kDomainToken = "d";
constexpr const char* kReleaseDomain = "@releaseDomain";

std::string frontend_token(DiskHandle handle) {
  return fmt::format("{}{}", kFrontendToken, handle);
}

}  // namespace

GuestBackend::GuestBackend(Environment environment, const Configuration& configuration,
                           DomainId own_domain, DomainId guest, std::function<void()> on_finished)
    : environment_(std::move(environment)),
      configuration_(configuration),
      own_domain_(own_domain),
      guest_(guest),
      on_finished_(std::move(on_finished)),
      connection_(environment_.control, environment_.open_store, kXenbusLog, limiter_, *this),
      reports_(environment_.control, environment_.data_plane),
      look_timer_(
          environment_.control,
          [](void* self) noexcept { static_cast<GuestBackend*>(self)->look(); }, this) {
  environment_.data_plane.set_events(this);
}

GuestBackend::~GuestBackend() {
  environment_.data_plane.set_events(nullptr);
}

Result<void> GuestBackend::start() {
  return connection_.open();
}

void GuestBackend::stop() {
  if (std::exchange(stopping_, true)) {
    return;
  }
  look_timer_.stop();
  connection_.stop();
  for (auto& [handle, disk] : disks_) {
    if (disk->retire(true)) {
      retired_.emplace(handle, std::move(disk));
    }
  }
  disks_.clear();
  finish_if_done();
}

// ---- xenstore ----

Result<void> GuestBackend::on_store_open(XenStore& store) {
  for (const BackendKind kind : kBackendKinds) {
    auto watched = store.watch(backend_guest_path(own_domain_, kind, guest_),
                               std::string(kBackendToken) + to_string(kind));
    if (!watched) {
      return watched;
    }
  }
  if (auto watched = store.watch(kReleaseDomain, kDomainToken); !watched) {
    log_warning(kXenbusLog, "the end of the guest cannot be watched for, only its disks' nodes: {}",
                watched.error().message);
  }
  for (auto& [handle, disk] : disks_) {
    disk->watch_frontend(frontend_token(handle));
    disk->mark();
  }
  scan_due_ = true;
  domain_check_due_ = true;
  look_soon();
  return {};
}

void GuestBackend::on_store_event(const WatchEvent& event) {
  const std::string_view token = event.token;
  if (token == kDomainToken) {
    domain_check_due_ = true;
  } else if (token.starts_with(kFrontendToken)) {
    const auto handle = parse_decimal<DiskHandle>(token.substr(kFrontendToken.size()));
    if (GuestDisk* disk = handle ? find(*handle) : nullptr) {
      disk->mark();
    }
  } else {
    // Below our node of this guest; without a disk of ours it may be a new one.
    bool known = false;
    for (auto& [handle, disk] : disks_) {
      const std::string& path = disk->node().path();
      const bool concerns = event.path.starts_with(path) &&
                            (event.path.size() == path.size() || event.path[path.size()] == '/');
      known = known || concerns;
      if (concerns) {
        disk->mark();
      }
    }
    scan_due_ = scan_due_ || !known;
  }
  look_soon();
}

// ---- looking ----

void GuestBackend::look_soon() {
  if (stopping_) {
    return;
  }
  const TimePoint now = environment_.control.now();
  const TimePoint due = std::max(now, last_look_ + kMinimumGap);
  if (!look_timer_.armed() || look_timer_.deadline() > due) {
    look_timer_.start_at(due);
  }
}

void GuestBackend::look_later() {
  if (!look_timer_.armed() && !stopping_) {
    look_timer_.start_after(kWriteRetry);
  }
}

void GuestBackend::look() {
  last_look_ = environment_.control.now();
  if (store() == nullptr || finished_) {
    return;
  }
  if (std::exchange(domain_check_due_, false)) {
    check_domain();
  }
  if (std::exchange(scan_due_, false)) {
    scan();
  }
  std::vector<DiskHandle> marked;
  for (auto& [handle, disk] : disks_) {
    if (disk->take_mark()) {
      marked.push_back(handle);
    }
  }
  for (const DiskHandle handle : marked) {
    if (GuestDisk* disk = find(handle)) {
      if (const auto outcome = disk->advance(); outcome != GuestDisk::Outcome::settled) {
        forget(handle, outcome);
      }
    }
  }
  finish_if_done();
}

void GuestBackend::check_domain() {
  const auto life = look_at_guest(environment_.domains, *store(), guest_);
  if (!life) {
    log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "the state of domain {} is not known: {}", guest_, life.error().message);
    return;
  }
  // A guest that ends while it is suspended lives on elsewhere (migration, save): it stays
  // suspended for its disks, so that nothing of it is tried again and its lost writes are fenced.
  if (life->suspended != suspended_ && life->runs) {
    suspended_ = life->suspended;
    log_info(kXenbusLog, "the guest {}", suspended_ ? "is suspended" : "goes on");
    environment_.data_plane.set_suspended(suspended_);
  }
  if (life->suspended) {
    // Nothing in xenstore changes when a suspended domain is resumed where it is.
    domain_check_due_ = true;
    look_later();
  }
  if (guest_runs_ && !life->runs) {
    guest_runs_ = false;  // for good: only a suspended domain comes back
    log_info(kXenbusLog, "the guest has ended");
    for (Disks* disks : {&disks_, &retired_}) {
      for (auto& [handle, disk] : *disks) {
        disk->guest_ended();
      }
    }
  }
}

void GuestBackend::scan() {
  for (const BackendKind kind : kBackendKinds) {
    auto nodes = list_guest_nodes(*store(), own_domain_, kind, guest_);
    if (!nodes) {
      log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "the disks of domain {} cannot be listed: {}", guest_, nodes.error().message);
      continue;
    }
    for (const XenbusNodeId& id : *nodes) {
      const bool known = std::any_of(disks_.begin(), disks_.end(), [&](const auto& entry) {
        return entry.second->node().id().kind == kind &&
               entry.second->node().id().device_id == id.device_id;
      });
      if (!known) {
        adopt(id);
      }
    }
  }
}

void GuestBackend::adopt(const XenbusNodeId& id) {
  auto description = read_disk_of_ours(*store(), id);
  if (!description) {
    if (description.error().code != ErrorCode::not_found) {
      log_limited(limiter_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "{}: the node cannot be used: {}", id.name(), description.error().message);
    }
    return;
  }
  if (!*description) {
    return;
  }
  if (disks_.size() == kMaxDisks) {
    log_limited(limiter_, environment_.control.now(), LogLevel::error, kXenbusLog,
                "{}: the guest has {} disks already, no more are served", id.name(), kMaxDisks);
    return;
  }
  const DiskHandle handle = next_handle_++;
  auto disk = std::make_unique<GuestDisk>(
      GuestDisk::Environment{*this, environment_.control, environment_.data_plane, configuration_,
                             limiter_},
      handle, id, std::move(**description));
  disk->watch_frontend(frontend_token(handle));
  disks_.emplace(handle, std::move(disk));
}

void GuestBackend::forget(DiskHandle handle, GuestDisk::Outcome outcome) {
  auto entry = disks_.extract(handle);
  GuestDisk& disk = *entry.mapped();
  log_info(kXenbusLog, "{}: no longer served", disk.node().id().name());
  disk.unwatch_frontend(frontend_token(handle));
  if (disk.retire(false)) {
    retired_.insert(std::move(entry));
  }
  if (outcome == GuestDisk::Outcome::replaced) {
    scan_due_ = true;
    look_soon();
  }
}

void GuestBackend::look_up(DiskHandle handle, const DiskPlan& plan) {
  environment_.resolver.resolve(plan, [this, handle](Result<ResolvedDisk> result) {
    if (GuestDisk* disk = find(handle)) {
      disk->on_resolved(std::move(result));
    }
  });
}

// ---- events of the I/O side ----

void GuestBackend::on_device_ready(DiskHandle handle, const Geometry& geometry,
                                   const std::string& wwid) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_device_ready(geometry, wwid);
  }
}

void GuestBackend::on_device_grown(DiskHandle handle, const Geometry& geometry) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_device_grown(geometry);
  }
}

void GuestBackend::on_device_conflict(DiskHandle handle, const std::string& why) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_device_conflict(why);
  }
}

void GuestBackend::on_device_trouble(DiskHandle handle, const std::string& why) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_device_trouble(why);
  }
}

void GuestBackend::on_ring_connected(DiskHandle handle, const Result<void>& result) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_ring_connected(result);
  }
}

void GuestBackend::on_ring_broken(DiskHandle handle, const std::string& why) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_ring_broken(why);
  }
}

void GuestBackend::on_ring_disconnected(DiskHandle handle) {
  if (GuestDisk* disk = find(handle)) {
    disk->on_ring_disconnected();
  }
}

void GuestBackend::on_device_closed(DiskHandle handle) {
  if (retired_.erase(handle) != 0) {
    finish_if_done();
  } else if (GuestDisk* disk = find(handle)) {
    disk->on_device_closed();
  }
}

GuestDisk* GuestBackend::find(DiskHandle handle) {
  const auto found = disks_.find(handle);
  return found == disks_.end() ? nullptr : found->second.get();
}

void GuestBackend::finish_if_done() {
  const bool none_expected = stopping_ || (!scan_due_ && store() != nullptr);
  if (!finished_ && disks_.empty() && retired_.empty() && none_expected) {
    finished_ = true;
    look_timer_.stop();
    on_finished_();
  }
}

}  // namespace iscsi_blkback
