#include "blkback/guest/disk_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blkback/guest/log_limits.h"

namespace iscsi_blkback {

DiskDevice::DiskDevice(const Environment& environment, DiskHandle handle, std::string name,
                       const DiskDescription& description)
    : environment_(environment),
      handle_(handle),
      name_(std::move(name)),
      description_(description),
      portals_log_(kMessageLimit, environment.all_log),
      close_log_(kMessageLimit, environment.all_log),
      retry_timer_(
          environment.control, [](void* self) noexcept { static_cast<DiskDevice*>(self)->retry(); },
          this),
      close_timer_(
          environment.control,
          [](void* self) noexcept { static_cast<DiskDevice*>(self)->on_close_overdue(); }, this) {}

Result<DiskPlan> DiskDevice::make_plan() {
  auto target = parse_disk_target(description_.params);
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
  return plan_disk(*target, environment_.configuration, description_.virtual_device,
                   description_.read_only);
}

void DiskDevice::open() {
  if (phase_ != Phase::none || refused_) {
    return;
  }
  auto plan = make_plan();
  if (!plan) {
    refused_ = true;
    environment_.owner.on_device_error(plan.error().message);
    return;
  }
  plan_ = std::move(*plan);
  phase_ = Phase::resolving;
  retry_timer_.stop();
  failed_lookups_ = 0;
  look_up();
}

void DiskDevice::look_up() {
  lookup_began_ = environment_.control.now();
  environment_.owner.look_up(plan_);
}

void DiskDevice::on_resolved(Result<ResolvedDisk> result) {
  if (phase_ != Phase::resolving && phase_ != Phase::open) {
    return;
  }
  if (!result) {
    const bool took_long = environment_.control.now() - lookup_began_ >= kLongLookup;
    if (phase_ == Phase::resolving && (++failed_lookups_ > 1 || took_long)) {
      environment_.owner.on_device_error(result.error().message);
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
  wishes_.apply(result->specification.portals);
  if (result->specification.portals.empty()) {
    if (result->complete) {
      retry_later();  // what can be used now has been removed
    }
    return;
  }
  if (phase_ == Phase::open) {
    environment_.data_plane.add_portals(handle_, std::move(result->specification.portals));
    return;
  }
  wishes_.apply(result->specification.multipath);
  result->specification.multipath.same_lun = names_;
  phase_ = Phase::open;
  environment_.data_plane.open_device(handle_, std::move(result->specification));
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
  closes_with_ring();
  environment_.data_plane.close_device(handle_, abandon);
}

void DiskDevice::closes_with_ring() {
  phase_ = Phase::closing;
  retry_timer_.stop();
  close_timer_.start_after(kCloseTimeout);
}

void DiskDevice::reopen() {
  after_close_ = AfterClose::open;
  environment_.data_plane.keep_place(handle_);
  close(false);
}

void DiskDevice::end() {
  retry_timer_.stop();
  close_timer_.stop();
  after_close_ = AfterClose::nothing;
}

void DiskDevice::guest_ended() {
  if (phase_ == Phase::closing) {
    environment_.data_plane.close_device(handle_, true);
  }
}

void DiskDevice::on_close_overdue() {
  if (phase_ == Phase::closing) {
    log_limited(close_log_, environment_.control.now(), LogLevel::warning, kXenbusLog,
                "{}: closed for the toolstack, which waits no longer; lost writes are still being "
                "fenced, or paths do not let go",
                name_);
    close_overdue_ = true;
    environment_.owner.on_device_changed();
  }
}

void DiskDevice::on_ready(const Geometry& geometry, const LunNames& names) {
  if (phase_ != Phase::open) {
    return;
  }
  geometry_ = geometry;
  names_ = names;
  retry_delay_ = kRetryMin;
  environment_.owner.on_device_error("");
  environment_.owner.on_device_changed();
}

void DiskDevice::on_grown(const Geometry& geometry) {
  if (phase_ == Phase::open && geometry_) {
    geometry_ = geometry;
    environment_.owner.on_device_changed();
  }
}

void DiskDevice::on_conflict(const std::string& why) {
  if (phase_ != Phase::open) {
    return;
  }
  // A LUN may be growing, and what was mapped wrongly is mapped anew.
  after_close_ = AfterClose::open_later;
  environment_.owner.on_device_error(
      fmt::format("{}: the portals of a disk must lead to one LUN", why));
  close(true);
  environment_.owner.on_device_changed();
}

void DiskDevice::on_trouble(const std::string& why) {
  if (phase_ == Phase::open && !geometry_) {
    environment_.owner.on_device_error(why);
  }
}

void DiskDevice::on_closed() {
  phase_ = Phase::none;
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
  environment_.owner.on_device_changed();
}

Result<void> DiskDevice::change(const ControlRequest& request) {
  const bool queueing = request.command == "disablequeueing" ||
                        request.command == "restorequeueing" ||
                        (request.command == "set" && request.setting == "no_path_retry");
  if (queueing) {
    return change_queueing(request);
  }
  if (request.command != "set") {
    return fail(ErrorCode::unsupported, "the command is unknown");
  }
  const auto changes = parse_policy_change(request);
  if (!changes) {
    return tl::unexpected(changes.error());
  }
  MultipathOptions together = plan_.multipath;
  wishes_.apply(together);
  overrule(*changes, together);
  if (const auto found = find_contradiction(together)) {
    SettingPlaces places = plan_.places;
    wishes_.note_places(places);
    places.insert_or_assign(request.setting, "this command");
    return fail(ErrorCode::conflict, with_places(*found, places));
  }
  wishes_.set_policies(*changes);
  environment_.data_plane.change_policies(handle_, *changes);
  return {};
}

Result<void> DiskDevice::change_queueing(const ControlRequest& request) {
  std::optional<NoPathRetry> wait;
  if (request.command == "disablequeueing") {
    wait = NoPathRetry{std::chrono::milliseconds(0)};
  } else if (request.command == "set") {
    auto parsed = parse_no_path_retry(request.value, plan_.multipath.polling_interval);
    if (!parsed) {
      return tl::unexpected(parsed.error());
    }
    wait = *parsed;
  }  // else as the configuration and the disk line have it
  wishes_.set_no_path_retry(wait);
  environment_.data_plane.set_no_path_retry(handle_, wait ? wait : plan_.multipath.no_path_retry);
  return {};
}

Result<DiskPlan> DiskDevice::plan_for(const PathChoice& choice) const {
  if (phase_ != Phase::open) {
    return fail(ErrorCode::unavailable,
                "the disk is not in use yet: none of its portals is known so far");
  }
  return plan_paths(plan_, choice);
}

void DiskDevice::on_paths_added(const std::vector<ResolvedPortal>& paths) {
  for (const ResolvedPortal& path : paths) {
    wishes_.path_added(path);
  }
}

void DiskDevice::on_paths_removed(const std::vector<ResolvedPortal>& paths) {
  for (const ResolvedPortal& path : paths) {
    wishes_.path_removed(path);
  }
}

}  // namespace iscsi_blkback
