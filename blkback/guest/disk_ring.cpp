#include "blkback/guest/disk_ring.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

// Of what is said of a ring: its references or its port are wrong. Everything else is what we lack.
bool is_the_guests_fault(ErrorCode code) {
  return code == ErrorCode::invalid_argument || code == ErrorCode::not_found ||
         code == ErrorCode::permission_denied || code == ErrorCode::protocol;
}

}  // namespace

DiskRing::DiskRing(Reactor& control, DiskOwner& owner, DiskDevice& device, std::string name,
                   LogLimiter& log)
    : control_(control),
      owner_(owner),
      device_(device),
      name_(std::move(name)),
      log_(log),
      drain_timer_(
          control, [](void* self) noexcept { static_cast<DiskRing*>(self)->on_drain_overdue(); },
          this),
      retry_timer_(
          control, [](void* self) noexcept { static_cast<DiskRing*>(self)->on_retry(); }, this) {}

void DiskRing::start_anew() {
  refused_ = false;
  waits_ = false;
  retry_delay_ = kRetryMin;
  retry_timer_.stop();
}

void DiskRing::connect(FrontendRing ring) {
  phase_ = RingPhase::connecting;
  device_.connect_ring(std::move(ring), *this);
}

void DiskRing::refuse(const std::string& why) {
  refused_ = true;
  owner_.on_error(why);
}

void DiskRing::on_ring_connected(const Result<void>& result) {
  if (phase_ != RingPhase::connecting) {
    return;
  }
  if (result) {
    phase_ = RingPhase::connected;
    owner_.on_error("");  // of an earlier ring
    return;
  }
  phase_ = RingPhase::idle;
  if (is_the_guests_fault(result.error().code)) {
    refuse(result.error().message);
    return;
  }
  waits_ = true;
  retry_timer_.start_after(retry_delay_);
  retry_delay_ = std::min(retry_delay_ * 2, kRetryMax);
  owner_.on_error(result.error().message);
}

void DiskRing::on_retry() {
  waits_ = false;
  owner_.on_change();
}

void DiskRing::disconnect(RingEnd end) {
  phase_ = RingPhase::disconnecting;
  device_.disconnect_ring(end);
  if (device_.is_open()) {
    drain_timer_.start_after(kDrainTimeout);
  } else {
    drain_timer_.stop();
  }
}

void DiskRing::on_ring_broken(const std::string& why) {
  if (phase_ == RingPhase::connected) {
    owner_.on_error(why);
    disconnect(RingEnd::answer);
  }
}

void DiskRing::on_drain_overdue() {
  if (phase_ == RingPhase::disconnecting && device_.is_open()) {
    log_limited(log_, control_.now(), LogLevel::warning, kXenbusLog,
                "{}: the last requests of a closed ring do not end, giving them up", name_);
    device_.reopen();
  }
}

void DiskRing::on_ring_disconnected() {
  if (phase_ == RingPhase::disconnecting) {
    phase_ = RingPhase::idle;
    drain_timer_.stop();
    owner_.on_change();
  }
}

void DiskRing::retire() {
  phase_ = RingPhase::idle;
  drain_timer_.stop();
  retry_timer_.stop();
}

}  // namespace iscsi_blkback
