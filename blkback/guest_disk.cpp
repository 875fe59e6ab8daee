#include "blkback/guest_disk.h"

namespace iscsi_blkback {
namespace {

constexpr int kMaxSteps = 16;  // of one disk in one look

}  // namespace

GuestDisk::GuestDisk(const Environment& environment, DiskHandle handle, const XenbusNodeId& id,
                     DiskDescription description)
    : environment_(environment),
      handle_(handle),
      node_(id),
      description_(std::move(description)),
      device_({*this, environment.control, environment.data_plane, environment.configuration,
               environment.limiter},
              handle, id.name(), description_),
      drain_timer_(
          environment.control,
          [](void* self) noexcept { static_cast<GuestDisk*>(self)->on_drain_overdue(); }, this) {
  log_info(kXenbusLog, "{}: serving {}", id.name(), description_.virtual_device);
}

void GuestDisk::changed() {
  dirty_ = true;
  environment_.host.look_soon();
}

// ---- xenstore ----

void GuestDisk::watch_frontend(const std::string& token) {
  auto watched = environment_.host.store()->watch(description_.frontend_path + "/state", token);
  if (!watched) {
    log_limited(environment_.limiter, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: the frontend cannot be watched: {}", node_.id().name(),
                watched.error().message);
  }
}

void GuestDisk::unwatch_frontend(const std::string& token) {
  environment_.host.store()->unwatch(description_.frontend_path + "/state", token);
}

GuestDisk::Outcome GuestDisk::advance() {
  for (int step = 0; step < kMaxSteps; ++step) {
    auto states = node_.read_states(*environment_.host.store(), description_.frontend_path);
    if (!states) {
      (void)wrote(tl::unexpected(states.error()), "read");
      return Outcome::settled;
    }
    states_ = *states;
    XenbusView view;
    view.frontend = states->frontend;
    view.backend = states->backend;
    view.online = states->online;
    view.announced = announced_;
    view.wrote_closed = wrote_closed_;
    view.guest_runs = environment_.host.guest_runs();
    view.device_ready = device_.ready();
    view.device_open = device_.is_open();
    view.device_closing = device_.worth_waiting_for();
    view.refused = device_.refused() || ring_refused_;
    view.size_changed =
        device_.geometry() && device_.geometry()->sector_count != published_sectors_;
    view.ring = ring_;
    const XenbusAction action = next_action(view);
    if (action != XenbusAction::none) {
      log_debug(kXenbusLog, "{}: frontend {}, backend {}{}: {}", node_.id().name(),
                to_string(view.frontend), to_string(view.backend), view.online ? "" : ", offline",
                to_string(action));
    }
    if (const auto outcome = perform(action)) {
      return *outcome;
    }
  }
  dirty_ = true;
  environment_.host.look_later();
  return Outcome::settled;
}

// Nothing: look at the states again, there may be more to do.
std::optional<GuestDisk::Outcome> GuestDisk::perform(XenbusAction action) {
  const auto again_if = [](bool done) {
    return done ? std::optional<Outcome>() : std::optional<Outcome>(Outcome::settled);
  };
  const bool guest_runs = environment_.host.guest_runs();
  switch (action) {
    case XenbusAction::none:
      return Outcome::settled;
    case XenbusAction::announce:
      return again_if(announce());
    case XenbusAction::connect:
      return again_if(connect());
    case XenbusAction::publish:
      return again_if(publish());
    case XenbusAction::tell_size:
      return again_if(tell_size());
    case XenbusAction::write_closing:
      return again_if(wrote(
          node_.write_state(*environment_.host.store(), states_.backend, XenbusState::closing),
          "state"));
    case XenbusAction::disconnect: {
      const bool closed_by_toolstack = states_.backend == XenbusState::closed && !wrote_closed_;
      const bool removed = states_.backend == XenbusState::unknown ||
                           (states_.frontend == XenbusState::unknown && !states_.online);
      // A frontend that starts without having closed is a kernel that has crashed into another one
      // (kexec), or one that has been resumed; one that has closed uses its pages for something else.
      // What the ring and the numbers of its grants name is other memory by now. Only one that is
      // closing still waits for answers.
      const bool waits = states_.frontend == XenbusState::closing ||
                         states_.frontend == XenbusState::connected ||
                         states_.frontend == XenbusState::initialised;
      disconnect(!guest_runs || closed_by_toolstack || removed ? RingEnd::abandon
                 : waits                                       ? RingEnd::answer
                                                               : RingEnd::forget);
      return {};
    }
    case XenbusAction::close_device:
      device_.close(!guest_runs);
      return {};
    case XenbusAction::write_closed: {
      const bool written =
          wrote(node_.write_state(*environment_.host.store(), states_.backend, XenbusState::closed),
                "state");
      wrote_closed_ = wrote_closed_ || written;
      return again_if(written);
    }
    case XenbusAction::finish:
      remove_node();
      return Outcome::finished;
    case XenbusAction::replace:
      return Outcome::replaced;
  }
  return Outcome::settled;
}

// A write that came too late because somebody changed the state is no failure: the next look sees
// the new one.
bool GuestDisk::wrote(const Result<void>& result, const char* what) {
  if (result) {
    return true;
  }
  if (result.error().code == ErrorCode::conflict) {
    changed();
    return false;
  }
  log_limited(environment_.limiter, environment_.control.now(), LogLevel::warning, kXenbusLog,
              "{}: xenstore refuses ({}): {}", node_.id().name(), what, result.error().message);
  dirty_ = true;
  environment_.host.look_later();
  return false;
}

bool GuestDisk::announce() {
  XenbusNode::Entries entries =
      XenbusNode::capabilities(environment_.configuration.max_ring_page_order);
  entries.emplace_back("state", std::to_string(static_cast<unsigned>(XenbusState::init_wait)));
  if (!wrote(node_.write(*environment_.host.store(), states_.backend, entries), "capabilities")) {
    return false;
  }
  announced_ = true;
  wrote_closed_ = false;
  ring_refused_ = false;
  device_.open();
  return true;
}

bool GuestDisk::connect() {
  auto ring = node_.read_ring(*environment_.host.store(), description_.frontend_path,
                              environment_.configuration.max_ring_page_order);
  if (!ring) {
    if (ring.error().code != ErrorCode::invalid_argument) {
      return wrote(tl::unexpected(ring.error()), "ring");
    }
    ring_refused_ = true;
    set_error(ring.error().message);
    return true;
  }
  ring_ = RingPhase::connecting;
  environment_.data_plane.connect_ring(handle_, node_.id().guest, std::move(*ring));
  return true;
}

bool GuestDisk::publish() {
  ISCSI_BLKBACK_ASSERT(device_.geometry().has_value());
  const Geometry& geometry = *device_.geometry();
  XenStore& store = *environment_.host.store();
  const XenbusNode::Entries sizes = XenbusNode::sizes(geometry, description_);
  if (!wrote(node_.write(store, states_.backend, sizes), "sizes") ||
      !wrote(node_.write_state(store, states_.backend, XenbusState::connected), "state")) {
    return false;
  }
  published_sectors_ = geometry.sector_count;
  log_info(kXenbusLog, "{}: connected, {} sectors{}", node_.id().name(), geometry.sector_count,
           geometry.read_only ? ", read-only" : "");
  return true;
}

// Linux's blkfront takes a repeated state 4 as the hint to look at `sectors` again
// (blkback_changed, since 2.6.36); a frontend that does not know it keeps the size it knows.
bool GuestDisk::tell_size() {
  const Geometry& geometry = *device_.geometry();
  XenbusNode::Entries entries = XenbusNode::sizes(geometry, description_);
  entries.emplace_back("state", std::to_string(static_cast<unsigned>(XenbusState::connected)));
  if (!wrote(node_.write(*environment_.host.store(), states_.backend, entries), "sectors")) {
    return false;
  }
  log_info(kXenbusLog, "{}: {} sectors now, before {}", node_.id().name(), geometry.sector_count,
           published_sectors_);
  published_sectors_ = geometry.sector_count;
  return true;
}

// In dom0 the toolstack removes the node, in a driver domain nobody else does.
void GuestDisk::remove_node() {
  if (node_.id().own_domain == 0 || states_.backend != XenbusState::closed) {
    return;
  }
  if (auto removed = node_.remove(*environment_.host.store()); !removed) {
    log_limited(environment_.limiter, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: the node cannot be removed: {}", node_.id().name(), removed.error().message);
  }
}

void GuestDisk::set_error(const std::string& sentence) {
  if (hotplug_error_ != sentence && !sentence.empty()) {
    log_limited(environment_.limiter, environment_.control.now(), LogLevel::error, kXenbusLog,
                "{} ({}): {}", node_.id().name(), description_.virtual_device, sentence);
  }
  hotplug_error_ = sentence;
  write_hotplug();
}

void GuestDisk::write_hotplug() {
  XenStore* store = environment_.host.store();
  const bool connected = device_.geometry().has_value();
  if (store == nullptr || (written_error_ == hotplug_error_ && written_connected_ == connected)) {
    return;
  }
  if (auto written = node_.write_hotplug(*store, connected, hotplug_error_); !written) {
    log_limited(environment_.limiter, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: hotplug-status cannot be written: {}", node_.id().name(),
                written.error().message);
    return;
  }
  written_error_ = hotplug_error_;
  written_connected_ = connected;
}

// ---- the device ----

void GuestDisk::guest_ended() {
  dirty_ = true;
  device_.guest_ended();
}

bool GuestDisk::retire(bool leave_ring) {
  if (device_.is_open()) {
    if (leave_ring) {
      // Leaves the ring, if there is one, and closes the device with it.
      environment_.data_plane.disconnect_ring(handle_, RingEnd::abandon);
      device_.closes_with_ring();
    } else {
      device_.close(true);
    }
  }
  device_.end();
  drain_timer_.stop();
  return device_.closing();
}

// What a guest has used already stays what it is: the other paths are quarantined then.
void GuestDisk::on_device_conflict(const std::string& why) {
  if (published_sectors_ == 0) {
    device_.on_conflict(why);
  }
}

void GuestDisk::on_device_closed() {
  written_connected_ = false;
  drain_timer_.stop();
  device_.on_closed();
}

void GuestDisk::on_device_changed() {
  changed();
}

void GuestDisk::on_device_error(const std::string& sentence) {
  set_error(sentence);
}

void GuestDisk::look_up(const DiskPlan& plan) {
  environment_.host.look_up(handle_, plan);
}

// ---- the ring ----

void GuestDisk::disconnect(RingEnd end) {
  ring_ = RingPhase::disconnecting;
  if (end == RingEnd::abandon && device_.is_open()) {
    drain_timer_.stop();
    device_.closes_with_ring();
  } else {
    drain_timer_.start_after(kDrainTimeout);
  }
  environment_.data_plane.disconnect_ring(handle_, end);
}

void GuestDisk::on_drain_overdue() {
  if (ring_ == RingPhase::disconnecting && device_.is_open()) {
    log_warning(kXenbusLog, "{}: the last requests of a closed ring do not end, giving them up",
                node_.id().name());
    device_.reopen();
  }
}

void GuestDisk::on_ring_connected(const Result<void>& result) {
  if (ring_ != RingPhase::connecting) {
    return;
  }
  ring_ = result ? RingPhase::connected : RingPhase::idle;
  if (!result) {
    ring_refused_ = true;
    set_error(result.error().message);
  } else if (!hotplug_error_.empty()) {
    set_error("");  // of an earlier ring
  }
  changed();
}

void GuestDisk::on_ring_broken(const std::string& why) {
  if (ring_ != RingPhase::connected) {
    return;
  }
  set_error(why);
  disconnect(RingEnd::answer);
}

void GuestDisk::on_ring_disconnected() {
  ring_ = RingPhase::idle;
  drain_timer_.stop();
  changed();
}

DiskStatus GuestDisk::status() const {
  DiskStatus status;
  status.node = node_.id();
  status.virtual_device = description_.virtual_device;
  status.params = device_.unreadable() ? "iscsi:(not shown)" : description_.params;
  status.read_only = description_.read_only;
  status.backend_state = states_.backend;
  status.frontend_state = states_.frontend;
  status.hotplug_error = hotplug_error_;
  return status;
}

}  // namespace iscsi_blkback
