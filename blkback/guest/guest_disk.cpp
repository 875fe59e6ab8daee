#include "blkback/guest/guest_disk.h"

#include "blkback/guest/guest_run_state.h"
#include "blkback/guest/log_limits.h"
#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {
namespace {

constexpr int kMaxSteps = 16;  // of one disk in one look

RingOffer ring_offer(const Configuration& configuration, const DiskDescription& disk) {
  return {.max_page_order = configuration.max_ring_page_order,
          .max_queues = configuration.max_queues,
          .max_indirect_segments = configuration.max_indirect_segments,
          .discards = disk.discards,
          .max_buffers_mb = configuration.max_buffers_mb};
}

}  // namespace

GuestDisk::GuestDisk(const DiskEnvironment& environment, Host& host, DiskHandle handle,
                     const GuestNode& node, std::string token)
    : environment_(environment),
      host_(host),
      handle_(handle),
      node_(node.id),
      description_(node.description),
      written_(node.description),
      token_(std::move(token)),
      wrote_closed_(node.rests),
      handshake_log_(kMessageLimit, environment.all_log),
      store_log_(kMessageLimit, environment.all_log),
      error_log_(kMessageLimit, environment.all_log),
      device_(environment, *this, handle, node.id.name(), description_),
      ring_(environment.control, *this, device_, node.id.name(), error_log_) {
  log_limited(handshake_log_, environment.control.now(), LogLevel::info, kXenbusLog,
              "{}: serving {}", node.id.name(), description_.virtual_device);
}

void GuestDisk::on_change() {
  dirty_ = true;
  host_.look_soon();
}

void GuestDisk::look_again_later() {
  dirty_ = true;
  host_.look_later();
}

// ---- xenstore ----

void GuestDisk::on_node_event(std::string_view key) {
  dirty_ = true;
  description_due_ = description_due_ || key.empty() || key == "/mode" || key == "/params";
}

void GuestDisk::on_store_open() {
  frontend_watched_ = false;
  hotplug_written_ = false;
  dirty_ = true;
}

bool GuestDisk::watch_frontend() {
  if (!frontend_watched_) {
    const auto watched = host_.store()->watch(description_.frontend_path + "/state", token_);
    frontend_watched_ = watched || watched.error().code == ErrorCode::conflict;
    if (!frontend_watched_) {
      return wrote(watched, "watch");
    }
  }
  return true;
}

void GuestDisk::unwatch_frontend() {
  if (XenStore* store = host_.store(); store != nullptr && frontend_watched_) {
    store->unwatch(description_.frontend_path + "/state", token_);
  }
}

GuestDisk::Outcome GuestDisk::advance() {
  for (int step = 0; step < kMaxSteps; ++step) {
    auto states = node_.read_states(*host_.store(), description_.frontend_path);
    if (!states) {
      (void)wrote(tl::unexpected(states.error()), "read");
      return Outcome::settled;
    }
    // After the node was read: what is done to it must be for the guest whose it is.
    const GuestPresence guest = host_.guest();
    if (guest == GuestPresence::replaced) {
      return Outcome::settled;  // it is about to be retired
    }
    if (guest == GuestPresence::unknown && !maps_pages()) {
      look_again_later();  // a domain whose pages are mapped keeps its number
      return Outcome::settled;
    }
    const bool guest_runs = guest == GuestPresence::runs || guest == GuestPresence::resets;
    if (states->backend == XenbusState::unknown && guest == GuestPresence::runs &&
        !removed_by_toolstack()) {
      return Outcome::settled;
    }
    lost_by_store_ = false;
    states_ = *states;
    if (step == 0) {
      (void)watch_frontend();
      (void)write_hotplug();
      look_at_description();
    }
    XenbusView view;
    view.frontend = states->frontend;
    view.backend = states->backend;
    view.online = states->online;
    view.announced = announced_;
    view.wrote_closed = wrote_closed_;
    view.guest_runs = guest_runs;
    view.device_ready = device_.ready() && !ring_.waits();
    view.device_open = device_.is_open();
    view.device_closing = device_.worth_waiting_for();
    view.refused = device_.refused() || ring_.refused();
    view.size_changed =
        device_.geometry() && device_.geometry()->sector_count != published_sectors_;
    view.ring = ring_.phase();
    const XenbusAction action = next_action(view);
    if (action != XenbusAction::none) {
      log_debug(kXenbusLog, "{}: frontend {}, backend {}{}: {}", node_.id().name(),
                to_string(view.frontend), to_string(view.backend), view.online ? "" : ", offline",
                to_string(action));
    }
    if (const auto outcome = perform(action, guest_runs)) {
      return *outcome;
    }
  }
  look_again_later();
  return Outcome::settled;
}

// The mode can be changed while the disk is attached, which xen-blkback and QEMU do not notice. The
// frontend is not told, as it reads `info` once; nor is there a way to tell it that a medium was
// taken out. What changes before a disk is announced is announce()'s, and a node that was made anew
// is another disk.
void GuestDisk::look_at_description() {
  const bool attached = announced_ && states_.backend != XenbusState::unknown &&
                        states_.backend != XenbusState::initialising;
  if (!std::exchange(description_due_, false) || !attached) {
    return;
  }
  auto now = node_.read_description(*host_.store());
  if (!now) {
    if (!is_about_the_node(now.error().code)) {
      description_due_ = true;
      look_again_later();
    }
    return;
  }
  const DiskDescription before = std::exchange(written_, std::move(*now));
  const auto say = [&](LogLevel level, std::string_view sentence) {
    log_limited(handshake_log_, environment_.control.now(), level, kXenbusLog, "{} ({}): {}",
                node_.id().name(), description_.virtual_device, sentence);
  };
  if (written_.read_only != before.read_only && !description_.read_only) {
    device_.set_read_only(written_.read_only);
    say(LogLevel::info, written_.read_only
                            ? "its mode is r now: the guest's writes are refused from now on"
                            : "its mode is w again: the guest may write");
  } else if (written_.read_only != before.read_only && !written_.read_only) {
    say(LogLevel::warning,
        "its mode is w now, but it was attached to be read only, and stays so until its frontend "
        "starts anew or it is attached anew");
  }
  if (written_.params != before.params && written_.params != description_.params) {
    say(LogLevel::warning,
        is_iscsi_params(written_.params)
            ? "its node has another target now: the guest keeps the one that it has until its "
              "frontend starts anew or the disk is attached anew"
            : "its target has been taken out of its node (eject): the guest keeps the disk until "
              "its frontend starts anew or the disk is detached");
  }
}

DiskDescription GuestDisk::shown() const {
  DiskDescription shown = description_;
  shown.read_only = description_.read_only || written_.read_only;
  return shown;
}

// The node has gone while its guest runs. If xenstore does not know the guest at all, that is not
// because somebody has detached the disk: xenstored has been started anew, without what it knew.
bool GuestDisk::removed_by_toolstack() {
  const auto known = xenstore_has_guest(*host_.store(), node_.id().guest);
  if (known && *known) {
    return true;
  }
  if (!known) {
    return wrote(tl::unexpected(known.error()), "guest");
  }
  if (!std::exchange(lost_by_store_, true)) {
    log_limited(
        store_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
        "{}: xenstore knows neither the disk nor its guest, which runs: it has lost them, and "
        "the disk is served as it is",
        node_.id().name());
  }
  look_again_later();
  return false;
}

// Nothing: look at the states again, there may be more to do.
std::optional<GuestDisk::Outcome> GuestDisk::perform(XenbusAction action, bool guest_runs) {
  const auto again_if = [](bool done) {
    return done ? std::optional<Outcome>() : std::optional<Outcome>(Outcome::settled);
  };
  switch (action) {
    case XenbusAction::none:
      return Outcome::settled;
    case XenbusAction::announce:
      return announce();
    case XenbusAction::connect:
      return again_if(connect());
    case XenbusAction::publish:
      return again_if(publish());
    case XenbusAction::tell_size:
      return again_if(tell_size());
    case XenbusAction::write_closing:
      return again_if(
          wrote(node_.write_state(*host_.store(), states_.backend, XenbusState::closing), "state"));
    case XenbusAction::disconnect:
      disconnect(guest_runs);
      return {};
    case XenbusAction::close_device:
      device_.close(!guest_runs);
      return {};
    case XenbusAction::write_closed: {
      const auto written = node_.write_state(*host_.store(), states_.backend, XenbusState::closed);
      // Xenstored may have written it and have died before it said so.
      wrote_closed_ = written || written.error().code == ErrorCode::unavailable;
      return again_if(wrote(written, "state"));
    }
    case XenbusAction::finish:
      return remove_node() ? Outcome::finished : Outcome::settled;
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
    on_change();
    return false;
  }
  log_limited(store_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
              "{}: xenstore refuses ({}): {}", node_.id().name(), what, result.error().message);
  look_again_later();
  return false;
}

// What the device is opened by is what the node says at this moment: nothing else would tell that
// it was made anew before anything was announced.
std::optional<GuestDisk::Outcome> GuestDisk::announce() {
  XenbusNode::Entries entries =
      XenbusNode::capabilities(ring_offer(environment_.configuration, description_));
  entries.emplace_back("state", std::to_string(static_cast<unsigned>(XenbusState::init_wait)));
  const auto written = node_.write_for(*host_.store(), description_, states_.backend, entries);
  if (written ? !*written : is_about_the_node(written.error().code)) {
    return Outcome::replaced;
  }
  if (!written) {
    (void)wrote(tl::unexpected(written.error()), "capabilities");
    return Outcome::settled;
  }
  announced_ = true;
  wrote_closed_ = false;
  ring_.start_anew();
  device_.open();
  return std::nullopt;
}

bool GuestDisk::connect() {
  auto ring = node_.read_ring(*host_.store(), description_.frontend_path,
                              ring_offer(environment_.configuration, description_));
  if (!ring) {
    if (ring.error().code != ErrorCode::invalid_argument) {
      return wrote(tl::unexpected(ring.error()), "ring");
    }
    ring_.refuse(ring.error().message);
    return true;
  }
  ring->statistics = statistics_page();
  ring_.connect(std::move(*ring));
  return true;
}

// The others' statistics nobody reads: of kind qdisk xentop asks QEMU, and it looks in dom0 only.
std::shared_ptr<StatisticsPage> GuestDisk::statistics_page() {
  const XenbusNodeId& id = node_.id();
  if (environment_.statistics == nullptr || id.kind != BackendKind::vbd3 || id.own_domain != 0) {
    return nullptr;
  }
  if (statistics_ == nullptr) {
    auto made = environment_.statistics->make_file(id.guest, id.device_id);
    if (!made) {
      log_limited(error_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "{}: xentop does not show the disk: {}", id.name(), made.error().message);
      return nullptr;
    }
    statistics_ = std::move(*made);
  }
  return statistics_->page();
}

void GuestDisk::disconnect(bool guest_runs) {
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
  const RingEnd end = !guest_runs || closed_by_toolstack || removed ? RingEnd::abandon
                      : waits                                       ? RingEnd::answer
                                                                    : RingEnd::forget;
  if (end == RingEnd::forget && states_.frontend == XenbusState::initialising) {
    log_limited(handshake_log_, environment_.control.now(), LogLevel::info, kXenbusLog,
                "{}: the frontend starts anew and has not closed (kexec, crash): what it asked for "
                "before is not answered",
                node_.id().name());
  }
  ring_.disconnect(end);
}

bool GuestDisk::publish() {
  ISCSI_BLKBACK_ASSERT(device_.geometry().has_value());
  const Geometry& geometry = *device_.geometry();
  XenStore& store = *host_.store();
  XenbusNode::Entries entries = XenbusNode::sizes(geometry, shown(), device_.sector_size());
  for (auto& entry : XenbusNode::identity(*device_.names())) {
    entries.push_back(std::move(entry));
  }
  if (statistics_ != nullptr) {
    entries.emplace_back("kthread-pid", std::to_string(environment_.statistics->process()));
  }
  if (!wrote(node_.write(store, states_.backend, entries), "sizes") ||
      !wrote(node_.write_state(store, states_.backend, XenbusState::connected), "state")) {
    return false;
  }
  published_sectors_ = geometry.sector_count;
  device_.on_published();
  log_limited(handshake_log_, environment_.control.now(), LogLevel::info, kXenbusLog,
              "{}: connected, {} sectors{}", node_.id().name(), geometry.sector_count,
              geometry.read_only ? ", read-only" : "");
  return true;
}

// Linux's blkfront takes a repeated state 4 as the hint to look at `sectors` again
// (blkback_changed, since 2.6.36); a frontend that does not know it keeps the size it knows.
bool GuestDisk::tell_size() {
  const Geometry& geometry = *device_.geometry();
  XenbusNode::Entries entries = XenbusNode::sizes(geometry, shown(), device_.sector_size());
  entries.emplace_back("state", std::to_string(static_cast<unsigned>(XenbusState::connected)));
  if (!wrote(node_.write(*host_.store(), states_.backend, entries), "sectors")) {
    return false;
  }
  log_limited(handshake_log_, environment_.control.now(), LogLevel::info, kXenbusLog,
              "{}: {} sectors now, before {}", node_.id().name(), geometry.sector_count,
              published_sectors_);
  published_sectors_ = geometry.sector_count;
  return true;
}

// In dom0 the toolstack removes the node, in a driver domain nobody else does.
bool GuestDisk::remove_node() {
  if (node_.id().own_domain == 0 || states_.backend != XenbusState::closed) {
    return true;
  }
  const auto removed = node_.remove(*host_.store());
  return removed || is_about_the_node(removed.error().code) || wrote(removed, "remove");
}

void GuestDisk::on_error(const std::string& sentence) {
  if (hotplug_error_ != sentence && !sentence.empty()) {
    log_limited(error_log_, environment_.control.now(), LogLevel::error, kXenbusLog, "{} ({}): {}",
                node_.id().name(), description_.virtual_device, sentence);
  }
  hotplug_error_ = sentence;
  on_change();
}

// False: to be done later.
bool GuestDisk::write_hotplug() {
  const bool connected = device_.geometry().has_value();
  auto device_path = this->device_path();
  if (hotplug_written_ && written_error_ == hotplug_error_ && written_connected_ == connected &&
      written_device_path_ == device_path) {
    return true;
  }
  hotplug_written_ = false;
  if (!wrote(node_.write_hotplug(*host_.store(), connected, hotplug_error_, device_path),
             "hotplug-status")) {
    return false;
  }
  hotplug_written_ = true;
  written_error_ = hotplug_error_;
  written_connected_ = connected;
  written_device_path_ = std::move(device_path);
  return true;
}

std::optional<std::string> GuestDisk::device_path() const {
  const auto offered = device_.is_offered_to_firmware();
  if (!description_.firmware_drive || !offered) {
    return std::nullopt;
  }
  return *offered ? firmware_device_path(environment_.configuration.run_directory, node_.id().guest,
                                         *description_.firmware_drive)
                  : std::string();
}

// ---- the device ----

void GuestDisk::guest_ended() {
  dirty_ = true;
  device_.guest_ended();
}

void GuestDisk::keep_place() {
  device_.keep_place();
}

bool GuestDisk::retire(bool leave_ring) {
  retired_ = true;
  statistics_.reset();  // the next disk of this number has a file of this name
  if (device_.is_open()) {
    if (leave_ring) {
      device_.disconnect_ring(RingEnd::abandon);  // if there is one
    } else {
      device_.close(true);
    }
  }
  ring_.retire();
  device_.end();
  return device_.closing();
}

void GuestDisk::on_device_closed() {
  if (retired_) {
    host_.on_retired_closed(handle_);
    return;
  }
  written_connected_ = false;
  ring_.on_device_closed();
  on_change();
}

DiskStatus GuestDisk::status() const {
  DiskStatus status;
  status.node = node_.id();
  status.virtual_device = description_.virtual_device;
  status.params = device_.unreadable() ? "iscsi:(not shown)" : description_.params;
  status.read_only = shown().read_only;
  status.backend_state = states_.backend;
  status.frontend_state = states_.frontend;
  status.hotplug_error = hotplug_error_;
  return status;
}

}  // namespace iscsi_blkback
