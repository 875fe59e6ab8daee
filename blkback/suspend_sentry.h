// SuspendSentry: asks Xen about the guest while the control thread cannot, because it waits for
// xenstored. A guest may be suspended and go on at another host however long xenstored hangs here:
// its disks must stop all the same.
//
// Owned by the guest's process, which has it listen to its connection to xenstored.
#pragma once

#include <functional>
#include <memory>

#include "blkback/xen/call_watchdog.h"
#include "blkback/xen/domain_info.h"
#include "multipath/guest_state.h"

namespace iscsi_blkback {

class SuspendSentry final : public SlowCallListener {
 public:
  // The guest may not run any more; from the watchdog's thread, again and again, and must not
  // block.
  using Tell = std::function<void(GuestState state)>;

  // domains: nobody else's. after_doubt: from the control thread, when the call is over in which
  // something was told, since the state is to be asked for and told anew; what that tells comes
  // after all that was told here.
  SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell,
                std::function<void()> after_doubt);
  SuspendSentry(const SuspendSentry&) = delete;
  SuspendSentry& operator=(const SuspendSentry&) = delete;
  ~SuspendSentry() = default;

  // SlowCallListener
  void on_slow_call() override;
  void on_slow_call_over() override;

 private:
  const std::unique_ptr<DomainInfo> domains_;
  const DomainId guest_;
  const Tell tell_;
  const std::function<void()> after_doubt_;
  bool told_ = false;  // during the call that is under way
};

}  // namespace iscsi_blkback
