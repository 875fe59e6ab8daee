#include "blkback/guest/guest_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace iscsi_blkback {
namespace {

// A domain that may not hear of other domains' ends never may, before Xen 4.21.
constexpr std::chrono::seconds kWatchRetry{60};
constexpr const char* kBackendToken = "b/";  // + the kind; see also GuestDisks
constexpr const char* kDomainToken = "d";
constexpr const char* kReleaseDomain = "@releaseDomain";

}  // namespace

GuestBackend::GuestBackend(Environment environment, const Configuration& configuration,
                           DomainId own_domain, DomainId guest, std::function<void()> on_finished)
    : environment_(std::move(environment)),
      own_domain_(own_domain),
      guest_(guest),
      on_finished_(std::move(on_finished)),
      connection_(environment_.control, environment_.open_store, kXenbusLog, all_log_, *this),
      watch_(environment_.control, environment_.domains, guest, all_log_, *this),
      reports_(environment_.control, environment_.data_plane),
      disks_({environment_.control, environment_.data_plane, environment_.resolver, configuration,
              all_log_, environment_.statistics, environment_.firmware},
             *this, guest_log_),
      look_timer_(
          environment_.control,
          [](void* self) noexcept { static_cast<GuestBackend*>(self)->look(); }, this) {}

Result<void> GuestBackend::start() {
  return connection_.open();
}

void GuestBackend::stop() {
  if (std::exchange(stopping_, true)) {
    return;
  }
  look_timer_.stop();
  connection_.stop();
  disks_.keep_places();  // for the process that comes after this one, if the guest goes on
  disks_.retire_all();
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
  releases_watched_ = false;
  watch_releases_at_ = {};
  disks_.on_store_open();
  scan_due_ = true;
  look_soon();
  return {};
}

void GuestBackend::on_store_lost() {
  (void)watch_.refresh();  // more often from now on: nobody tells of a suspend
}

void GuestBackend::watch_releases() {
  const TimePoint now = environment_.control.now();
  if (releases_watched_ || now < watch_releases_at_) {
    return;
  }
  const auto watched = store()->watch(kReleaseDomain, kDomainToken);
  releases_watched_ = watched || watched.error().code == ErrorCode::conflict;
  if (!releases_watched_) {
    const bool refused = is_about_the_node(watched.error().code);
    watch_releases_at_ = now + (refused ? Duration(kWatchRetry) : Duration(kRetry));
    if (!refused) {
      look_later();
    }
    log_limited(watch_log_, now, LogLevel::warning, kXenbusLog,
                "xenstore does not tell of the guest's end, Xen is asked every second: {}",
                watched.error().message);
  }
}

void GuestBackend::on_store_event(const WatchEvent& event) {
  const std::string_view token = event.token;
  if (token == kDomainToken) {
    // Looking begins with the guest, too, but may have to wait.
    (void)watch_.refresh();
  } else if (token.starts_with(GuestDisks::kFrontendToken)) {
    disks_.on_frontend_event(token);
  } else if (!disks_.on_backend_event(event.path)) {
    scan_due_ = true;  // it may be a new one
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
    look_timer_.start_after(kRetry);
  }
}

void GuestBackend::look() {
  last_look_ = environment_.control.now();
  if (finished_) {
    return;
  }
  if (watch_.life().incarnation != served_incarnation_) {
    replace_guest();
  }
  if (store() == nullptr) {
    if (!watch_.life().runs) {
      // Its pages do not wait for xenstored. What is to be written then is written by whoever finds
      // the nodes.
      disks_.retire_all();
    }
    return;
  }
  watch_releases();
  // The nodes first, then whose they are: when a node is there, so is its guest.
  const std::vector<GuestNode> nodes = new_nodes();
  const bool answered = watch_.refresh();
  if (watch_.life().incarnation != served_incarnation_) {
    replace_guest();
  }
  if (nodes.empty() || (!answered && !watch_.life().runs)) {
    scan_due_ = scan_due_ || !nodes.empty();
  } else {
    adopt(nodes);
  }
  if (disks_.advance()) {
    scan_due_ = true;
    look_soon();
  }
  if (scan_due_) {
    look_later();
  }
  finish_if_done();
}

// The guest's nodes that are no disks of ours yet but are to be. What cannot be read is still due.
std::vector<GuestNode> GuestBackend::new_nodes() {
  std::vector<GuestNode> nodes;
  const bool due = std::exchange(scan_due_, false);
  for (std::size_t kind = 0; due && kind < std::size(kBackendKinds); ++kind) {
    auto listed = list_guest_nodes(*store(), own_domain_, kBackendKinds[kind], guest_);
    if (!listed) {
      // Where the folder may not be read, there are none for us; its owner would be told of it.
      scan_due_ = scan_due_ || !is_about_the_node(listed.error().code);
      log_limited(nodes_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                  "the disks of domain {} cannot be listed: {}", guest_, listed.error().message);
      continue;
    }
    for (const XenbusNodeId& id : *listed) {
      if (disks_.serves(id)) {
        continue;
      }
      auto node = read_disk_of_ours(*store(), id);
      if (node && *node) {
        nodes.push_back(std::move(**node));
      } else if (!node && node.error().code != ErrorCode::not_found) {
        scan_due_ = scan_due_ || !is_about_the_node(node.error().code);
        log_limited(nodes_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                    "{}: the node cannot be used: {}", id.name(), node.error().message);
      }
    }
  }
  return nodes;
}

void GuestBackend::adopt(const std::vector<GuestNode>& nodes) {
  for (const GuestNode& node : nodes) {
    if (!disks_.adopt(node)) {
      log_limited(nodes_log_, environment_.control.now(), LogLevel::error, kXenbusLog,
                  "{}: the guest has {} disks already, no more are served", node.id.name(),
                  GuestDisks::kMax);
      return;
    }
  }
}

void GuestBackend::on_retired_closed(DiskHandle disk) {
  disks_.on_retired_closed(disk);
  finish_if_done();
}

// ---- the guest ----

GuestPresence GuestBackend::guest() {
  // Before anything is done to the nodes of a guest that has ended, in case they are the next
  // one's: this is the latest that can be known.
  const bool known = watch_.life().runs || watch_.refresh();
  if (watch_.life().incarnation != served_incarnation_) {
    return GuestPresence::replaced;
  }
  if (watch_.life().runs) {
    return watch_.life().resets ? GuestPresence::resets : GuestPresence::runs;
  }
  return known ? GuestPresence::ended : GuestPresence::unknown;
}

bool GuestBackend::is_told_of_the_guest() const {
  return connection_.store() != nullptr && releases_watched_;
}

void GuestBackend::on_guest_changed(const GuestRunState& before) {
  const GuestRunState& life = watch_.life();
  const TimePoint now = environment_.control.now();
  if (life.incarnation != before.incarnation) {
    log_limited(guest_log_, now, LogLevel::info, kXenbusLog,
                "the number is another guest's now; what was the former one's is retired");
    look_soon();  // not from here: a disk may be what has asked
    return;
  }
  if (guest_now() != told_) {
    tell_disks_of_guest();
  }
  if (before.runs && life.suspended != before.suspended) {
    log_limited(guest_log_, now, LogLevel::info, kXenbusLog, "the guest {}",
                life.suspended ? "is suspended" : "goes on");
  }
  if (before.runs && !life.runs) {
    log_limited(guest_log_, now, LogLevel::info, kXenbusLog, "the guest has ended");
    disks_.guest_ended();
    look_soon();
  }
}

// What a guest that is suspended has not been told of it does again, perhaps elsewhere. One that is
// in doubt may be suspended. One that has ended may have been started anew elsewhere, and waits for
// nothing any more: its disks stop now, however long xenstore keeps them from being closed.
GuestNow GuestBackend::guest_now() const {
  GuestState state = GuestState::runs;
  if (!watch_.life().runs) {
    state = watch_.life().suspended ? GuestState::moved : GuestState::ended;
  } else if (watch_.life().suspended) {
    state = GuestState::suspended;
  } else if (watch_.in_doubt()) {
    state = GuestState::in_doubt;
  }
  return {state, watch_.vm()};
}

void GuestBackend::tell_guest_again() {
  (void)watch_.refresh();
  tell_disks_of_guest();
}

void GuestBackend::tell_disks_of_guest() {
  told_ = guest_now();
  environment_.data_plane.set_guest(disks_.first_of_guest(), told_);
}

void GuestBackend::replace_guest() {
  served_incarnation_ = watch_.life().incarnation;
  disks_.guest_replaced();
  tell_disks_of_guest();  // the devices of the former guest stay suspended if they were
  scan_due_ = true;
  look_soon();
}

// ---- what an operator asks ----

void GuestBackend::change(const DiskChange& change, DiskDevice::Changed done) {
  GuestDisk* disk = disks_.find(change.device_id);
  if (disk == nullptr) {
    done(fail(ErrorCode::not_found, fmt::format("the guest has no disk {}", change.device_id)));
    return;
  }
  disk->change(change.what, std::move(done));
}

void GuestBackend::query(std::function<void(GuestStatus)> done) {
  reports_.ask([this, done = std::move(done)](std::vector<DiskReport>* reports) {
    done({guest_, reports != nullptr, disks_.status(reports)});
  });
}

void GuestBackend::finish_if_done() {
  const bool none_expected = stopping_ || (!scan_due_ && store() != nullptr &&
                                           watch_.life().incarnation == served_incarnation_);
  if (!finished_ && disks_.none_left() && none_expected) {
    finished_ = true;
    look_timer_.stop();
    watch_.stop();
    on_finished_();
  }
}

}  // namespace iscsi_blkback
