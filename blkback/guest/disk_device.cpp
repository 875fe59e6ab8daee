#include "blkback/guest/disk_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blkback/guest/log_limits.h"
#include "multipath/attach/policy_contradiction.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kNotInUse = "the disk is not in use";

// Of those policies that can be set while a disk is in use.
void note_places(const PathPolicySettings& policies, const char* place, SettingPlaces& places) {
  if (policies.path_selector) {
    places.insert_or_assign("path_selector", place);
  }
  if (policies.path_grouping_policy) {
    places.insert_or_assign("path_grouping_policy", place);
  }
}

}  // namespace

DiskDevice::DiskDevice(const DiskEnvironment& environment, DiskOwner& owner, DiskHandle handle,
                       std::string name, const DiskDescription& description)
    : environment_(environment),
      owner_(owner),
      handle_(handle),
      name_(std::move(name)),
      description_(description),
      portals_log_(kMessageLimit, environment.all_log),
      close_log_(kMessageLimit, environment.all_log),
      firmware_log_(kMessageLimit, environment.all_log),
      retry_timer_(
          environment.control, [](void* self) noexcept { static_cast<DiskDevice*>(self)->retry(); },
          this),
      close_timer_(
          environment.control,
          [](void* self) noexcept { static_cast<DiskDevice*>(self)->on_close_overdue(); }, this) {}

Result<DiskConfig> DiskDevice::make_config() {
  auto target = parse_disk_url(description_.params);
  if (!target) {
    unreadable_ = true;
    return fail(target.error().code, fmt::format("the disk's target: {}", target.error().message));
  }
  if (description_.device_model_opens_it) {
    return fail(
        ErrorCode::unsupported,
        fmt::format("{} is an emulated drive of an HVM guest, whose device model (QEMU) would "
                    "open the LUN, too, past this service: call it xvde or further, or use "
                    "backendtype=tap,script=block-iscsi-blkback",
                    description_.virtual_device));
  }
  return configure_disk(*target, environment_.configuration, description_.virtual_device,
                        description_.read_only);
}

void DiskDevice::open() {
  if (phase_ != Phase::none || refused_) {
    return;
  }
  auto config = make_config();
  if (!config) {
    refuse(config.error().message);
    return;
  }
  config_ = std::move(*config);
  listen_for_firmware();
  phase_ = Phase::resolving;
  retry_timer_.stop();
  failed_lookups_ = 0;
  look_up();
}

void DiskDevice::refuse(const std::string& why) {
  refused_ = true;
  withdraw_from_firmware();
  owner_.on_error(why);
}

void DiskDevice::look_up() {
  lookup_began_ = environment_.control.now();
  environment_.resolver.resolve(config_,
                                [this, alive = std::weak_ptr(alive_)](Result<ResolvedDisk> result) {
                                  if (!alive.expired()) {
                                    on_resolved(std::move(result));
                                  }
                                });
}

void DiskDevice::on_resolved(Result<ResolvedDisk> result) {
  if (phase_ != Phase::resolving && phase_ != Phase::open) {
    return;
  }
  if (!result) {
    const bool took_long = environment_.control.now() - lookup_began_ >= kLongLookup;
    if (phase_ == Phase::resolving && (++failed_lookups_ > 1 || took_long)) {
      owner_.on_error(result.error().message);
    }
    retry_later();
    return;
  }
  failed_lookups_ = 0;
  if (!result->trouble.empty() && result->complete) {
    log_limited(portals_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: some portals cannot be used yet: {}", name_, result->trouble);
    retry_later();
  }
  overrides_.apply(result->specification.portals);
  if (result->specification.portals.empty()) {
    if (result->complete) {
      retry_later();  // what can be used now has been removed
    }
    return;
  }
  if (phase_ == Phase::open) {
    port_->add_portals(std::move(result->specification.portals));
    return;
  }
  overrides_.apply(result->specification.multipath);
  result->specification.multipath.same_lun = names_;
  result->specification.device_id = description_.device_id;
  phase_ = Phase::open;
  port_ = environment_.data_plane.open(handle_, std::move(result->specification), *this);
  if (read_only_) {
    port_->set_read_only(true);
  }
}

void DiskDevice::retry() {
  if (phase_ == Phase::none) {
    open();
  } else {
    look_up();
  }
}

void DiskDevice::retry_later() {
  retry_timer_.start_after(retry_delay_);
  retry_delay_ = std::min(retry_delay_ * 2, kRetryMax);
}

void DiskDevice::close(bool abandon) {
  close_overdue_ = false;
  begin_to_close();
  port_->close(abandon);
}

void DiskDevice::begin_to_close() {
  phase_ = Phase::closing;
  retry_timer_.stop();
  close_timer_.start_after(kCloseTimeout);
}

void DiskDevice::reopen() {
  after_close_ = AfterClose::open;
  port_->keep_place();
  close(false);
}

void DiskDevice::keep_place() {
  if (phase_ == Phase::open) {
    port_->keep_place();
  }
}

void DiskDevice::end() {
  retry_timer_.stop();
  close_timer_.stop();
  after_close_ = AfterClose::nothing;
  firmware_socket_.reset();  // a disk that comes after this one may have its path
}

void DiskDevice::guest_ended() {
  if (phase_ == Phase::closing) {
    port_->close(true);
  }
}

void DiskDevice::set_read_only(bool read_only) {
  read_only_ = read_only;
  if (port_ != nullptr) {
    port_->set_read_only(read_only);
  }
}

void DiskDevice::connect_ring(FrontendRing ring, RingEvents& events) {
  port_->connect_ring(std::move(ring), events);
}

void DiskDevice::disconnect_ring(RingEnd end) {
  if (end == RingEnd::abandon && phase_ == Phase::open) {
    begin_to_close();
  }
  port_->disconnect_ring(end);
}

void DiskDevice::on_close_overdue() {
  if (phase_ == Phase::closing) {
    log_limited(close_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: closed for the toolstack, which waits no longer; lost writes are still being "
                "fenced, or paths do not let go",
                name_);
    close_overdue_ = true;
    owner_.on_change();
  }
}

void DiskDevice::on_ready(const Geometry& geometry, const LunNames& names) {
  if (phase_ != Phase::open) {
    return;
  }
  if (const std::string trouble = sector_size_trouble(config_, geometry.logical_block_bytes);
      !trouble.empty()) {
    refuse(trouble);
    close(true);
    owner_.on_change();
    return;
  }
  geometry_ = geometry;
  names_ = names;
  retry_delay_ = kRetryMin;
  offer_to_firmware(geometry);
  owner_.on_error("");
}

// From the beginning, so that libxl finds the socket although the LUN is waited for: the device model waits
// for it there. What cannot be offered is a disk for the guest's PV driver all the same, as it is with libxl.
void DiskDevice::listen_for_firmware() {
  if (!description_.firmware_drive || environment_.firmware == nullptr || firmware_socket_) {
    return;
  }
  if (config_.sector_size > kSectorBytes) {
    do_not_offer("firmware has sectors of 512 bytes, and the disk's have more (sector_size)");
    return;
  }
  auto made = FirmwareSocket::open(*environment_.firmware, *description_.firmware_drive);
  if (!made) {
    do_not_offer(made.error().message);
    return;
  }
  firmware_socket_.emplace(std::move(*made));
}

void DiskDevice::offer_to_firmware(const Geometry& geometry) {
  if (!firmware_socket_) {
    return;
  }
  if (geometry.read_only && !description_.read_only) {
    do_not_offer("the LUN is write-protected");
    return;
  }
  if (config_.multipath.shared && geometry.logical_block_bytes > kSectorBytes) {
    do_not_offer(
        fmt::format("its blocks have {} bytes, and parts of them cannot be written where the LUN "
                    "is shared",
                    geometry.logical_block_bytes));
    return;
  }
  auto end = firmware_socket_->server_end();
  if (!end) {
    do_not_offer(end.error().message);
    return;
  }
  port_->serve_nbd(std::move(*end), description_.discards);
}

// A device model that has come already is not kept waiting.
void DiskDevice::withdraw_from_firmware() {
  firmware_socket_.reset();
  not_for_firmware_ = true;
}

void DiskDevice::do_not_offer(const std::string& why) {
  withdraw_from_firmware();
  log_limited(firmware_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
              "{}: the guest's firmware cannot boot from {}: {}", name_,
              description_.virtual_device, why);
}

void DiskDevice::on_grown(const Geometry& geometry) {
  if (phase_ == Phase::open && geometry_) {
    geometry_ = geometry;
    owner_.on_change();
  }
}

void DiskDevice::on_conflict(const std::string& why) {
  if (phase_ != Phase::open || published_) {
    return;
  }
  // A LUN may be growing, and what was mapped wrongly is mapped anew.
  after_close_ = AfterClose::open_later;
  owner_.on_error(fmt::format("{}: the portals of a disk must lead to one LUN", why));
  close(true);
  owner_.on_change();
}

void DiskDevice::on_unavailable(const std::string& why) {
  if (phase_ == Phase::open && !geometry_) {
    owner_.on_error(why);
  }
}

void DiskDevice::on_closed() {
  phase_ = Phase::none;
  port_.reset();
  close_overdue_ = false;
  geometry_.reset();
  close_timer_.stop();
  switch (std::exchange(after_close_, AfterClose::nothing)) {
    case AfterClose::nothing:
      break;
    case AfterClose::open:
      open();
      break;
    case AfterClose::open_later:
      retry_later();
      break;
  }
  owner_.on_device_closed();
}

// ---- an operator's changes ----

void DiskDevice::change(const DiskChange::What& what, Changed done) {
  std::visit([&](const auto& change) { carry_out(change, done); }, what);
}

void DiskDevice::carry_out(const SetNoPathRetry& change, const Changed& done) {
  set_no_path_retry(change.wait.with(config_.multipath.polling_interval));
  done({});
}

void DiskDevice::carry_out(const RestoreNoPathRetry&, const Changed& done) {
  set_no_path_retry(std::nullopt);
  done({});
}

void DiskDevice::set_no_path_retry(std::optional<NoPathRetry> wait) {
  overrides_.set_no_path_retry(wait);
  if (port_ != nullptr) {
    port_->set_no_path_retry(wait ? wait : config_.multipath.no_path_retry);
  }
}

void DiskDevice::carry_out(const SetPolicies& change, const Changed& done) {
  MultipathOptions together = config_.multipath;
  overrides_.apply(together);
  overrule(change.policies, together);
  if (const auto found = find_contradiction(together)) {
    SettingPlaces places = config_.places;
    note_places(overrides_.policies(), "an earlier command", places);
    note_places(change.policies, "this command", places);
    done(fail(ErrorCode::conflict, with_places(*found, places)));
    return;
  }
  overrides_.set_policies(change.policies);
  if (port_ != nullptr) {
    port_->change_policies(change.policies);
  }
  done({});
}

void DiskDevice::carry_out(const AddPath& change, const Changed& done) {
  if (phase_ != Phase::open) {
    done(fail(ErrorCode::unavailable,
              "the disk is not in use yet: none of its portals is known so far"));
    return;
  }
  environment_.resolver.resolve(
      config_for_paths(config_, change.path),
      [this, alive = std::weak_ptr(alive_), done](const Result<ResolvedDisk>& resolved) {
        if (!resolved) {
          done(tl::unexpected(resolved.error()));
        } else if (resolved->complete && (alive.expired() || port_ == nullptr)) {
          done(fail(ErrorCode::unavailable, kNotInUse));
        } else if (resolved->complete) {
          add_paths(resolved->specification.portals, done);
        }
      });
}

void DiskDevice::add_paths(const std::vector<ResolvedPortal>& paths, const Changed& done) {
  port_->add_paths(paths,
                   [this, alive = std::weak_ptr(alive_), paths, done](const Result<void>& added) {
                     if (added && !alive.expired()) {
                       for (const ResolvedPortal& path : paths) {
                         overrides_.path_added(path);
                       }
                     }
                     done(added);
                   });
}

void DiskDevice::carry_out(const RemovePath& change, const Changed& done) {
  if (port_ == nullptr) {
    done(fail(ErrorCode::unavailable, kNotInUse));
    return;
  }
  port_->remove_paths(change.path, [this, alive = std::weak_ptr(alive_),
                                    done](const Result<std::vector<ResolvedPortal>>& removed) {
    if (!removed) {
      done(tl::unexpected(removed.error()));
      return;
    }
    if (!alive.expired()) {
      for (const ResolvedPortal& path : *removed) {
        overrides_.path_removed(path);
      }
    }
    done({});
  });
}

}  // namespace iscsi_blkback
