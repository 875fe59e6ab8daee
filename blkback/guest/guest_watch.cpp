#include "blkback/guest/guest_watch.h"

#include <algorithm>
#include <utility>

#include "blkback/guest/log_limits.h"
#include "blkback/guest/xenbus_node.h"

namespace iscsi_blkback {
GuestWatch::GuestWatch(Reactor& control, DomainInfo* domains, DomainId guest, LogLimiter& limiter,
                       Owner& owner)
    : control_(control),
      domains_(domains),
      guest_(guest),
      owner_(owner),
      failure_log_(kMessageLimit, limiter),
      timer_(
          control, [](void* self) noexcept { static_cast<GuestWatch*>(self)->on_timer(); }, this) {}

void GuestWatch::on_timer() {
  (void)refresh();
}

Result<DomainStatus> GuestWatch::ask(bool& by_xen) {
  by_xen = false;
  if (domains_ != nullptr) {
    auto status = domains_->status(guest_);
    xen_has_answered_ = xen_has_answered_ || status.has_value();
    by_xen = xen_has_answered_ || !is_refusal(status.error().code);
    if (by_xen) {
      return status;
    }
    log_limited(failure_log_, control_.now(), LogLevel::warning, kXenbusLog,
                "only xenstore tells what becomes of domain {}, and it knows of no suspend: {}",
                guest_, status.error().message);
  }
  XenStore* const store = owner_.store();
  if (store == nullptr) {
    return fail(ErrorCode::unavailable, "xenstored cannot be reached");
  }
  return status_in_xenstore(*store, guest_);
}

bool GuestWatch::refresh() {
  bool by_xen = false;
  const auto status = ask(by_xen);
  if (!status) {
    on_failure(status.error(), by_xen);
    return false;
  }
  fails_since_.reset();
  retry_delay_ = kRetryMin;
  const GuestRunState before = life_;
  life_ = life_after(before, status_, *status, owner_.maps_pages());
  status_ = *status;
  // What is gone has no UUID any more.
  const bool vm_goes_on =
      status->handle == DomainHandle{} && life_.incarnation == before.incarnation;
  const std::uint64_t vm_before = std::exchange(vm_, vm_goes_on ? vm_ : vm_of(status->handle));
  const bool was_in_doubt = std::exchange(in_doubt_, false);
  if (was_in_doubt) {
    log_limited(failure_log_, control_.now(), LogLevel::info, kXenbusLog,
                "the state of domain {} is known again", guest_);
  }
  // Xenstore says nothing of a suspend, and need not be asked often.
  const bool look_often = by_xen && (life_.suspended || !owner_.is_told_of_the_guest());
  timer_.start_after(life_.runs && look_often ? kShortInterval : kInterval);
  if (life_ != before || was_in_doubt || vm_ != vm_before) {
    owner_.on_guest_changed(before);
  }
  return true;
}

void GuestWatch::on_failure(const Error& why, bool by_xen) {
  timer_.start_after(retry_delay_);
  retry_delay_ = std::min(retry_delay_ * 2, kRetryMax);
  const TimePoint now = control_.now();
  if (!fails_since_) {
    fails_since_ = now;
  }
  log_limited(failure_log_, now, LogLevel::warning, kXenbusLog,
              "the state of domain {} is not known: {}", guest_, why.message);
  // Xenstore would not tell of a suspend anyway.
  if (by_xen && !in_doubt_ && life_.runs && now - *fails_since_ >= kDoubt) {
    in_doubt_ = true;
    log_limited(failure_log_, now, LogLevel::error, kXenbusLog,
                "domain {} may be suspended: its disks wait until Xen says what it does", guest_);
    owner_.on_guest_changed(life_);
  }
}

}  // namespace iscsi_blkback
