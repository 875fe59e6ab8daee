#include "blkback/suspend_sentry.h"

#include <utility>

namespace iscsi_blkback {

SuspendSentry::SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell,
                             std::function<void()> after_doubt)
    : domains_(std::move(domains)),
      guest_(guest),
      tell_(std::move(tell)),
      after_doubt_(std::move(after_doubt)) {}

void SuspendSentry::on_slow_call() {
  const auto status = domains_->status(guest_);
  if (status ? status->life == DomainLife::running : is_refusal(status.error().code)) {
    return;
  }
  told_ = true;
  // How a guest has ended is the control thread's to find out.
  tell_(status ? GuestState::suspended : GuestState::in_doubt);
}

void SuspendSentry::on_slow_call_over() {
  if (std::exchange(told_, false)) {
    after_doubt_();
  }
}

}  // namespace iscsi_blkback
