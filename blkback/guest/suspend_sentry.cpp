#include "blkback/guest/suspend_sentry.h"

#include <utility>

namespace iscsi_blkback {

SuspendSentry::SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell,
                             std::function<void()> after_telling)
    : domains_(std::move(domains)),
      guest_(guest),
      tell_(std::move(tell)),
      after_telling_(std::move(after_telling)) {}

void SuspendSentry::on_slow_call() {
  const auto status = domains_->status(guest_);
  if (!status) {
    if (!is_refusal(status.error().code)) {
      told_ = GuestState::in_doubt;
      tell_({GuestState::in_doubt});
    }
    return;
  }
  life_ = life_after(life_, status_, *status, false);
  status_ = *status;
  if (life_.incarnation != 0) {
    return;  // another guest: what was told of the one before holds
  }
  // How a guest has ended is the control thread's to find out.
  const bool runs = life_.runs && !life_.suspended;
  const GuestState state = runs ? GuestState::runs : GuestState::suspended;
  if (!runs || told_ != state) {
    told_ = state;
    tell_({state, vm_of(status->handle)});
  }
}

void SuspendSentry::on_slow_call_over() {
  status_.reset();
  life_ = {};
  if (std::exchange(told_, std::nullopt)) {
    after_telling_();
  }
}

}  // namespace iscsi_blkback
