// SuspendSentry: asks Xen about the guest while the control thread cannot, because it waits for
// xenstored. A guest may be suspended and go on at another host however long xenstored hangs here:
// its disks must stop all the same. And when it goes on here (a checkpoint, or Xen that did not
// answer for a moment), its disks must go on, too.
//
// Owned by the guest's process, which has it listen to its connection to xenstored.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "blkback/guest/guest_run_state.h"
#include "blkback/xen/call_watchdog.h"
#include "blkback/xen/domain_info.h"
#include "multipath/fencing/guest_state.h"

namespace iscsi_blkback {

class SuspendSentry final : public SlowCallListener {
 public:
  // What Xen says of the guest now: that it runs, when this is new; that it may not, again and
  // again. From the watchdog's thread, and must not block. Whether what runs is the guest whose
  // disks are served is for who is told: here only those are known that have had the number during
  // the call.
  using Tell = std::function<void(const GuestNow& guest)>;

  // domains: nobody else's. after_telling: from the control thread, when the call is over in which
  // something was told, since the state is to be asked for and told anew; what that tells comes
  // after all that was told here.
  SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell,
                std::function<void()> after_telling);
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
  const std::function<void()> after_telling_;
  // Of the call that is under way.
  std::optional<DomainStatus> status_;  // as last answered
  GuestRunState life_;
  std::optional<GuestState> told_;
};

}  // namespace iscsi_blkback
