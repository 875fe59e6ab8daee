// SuspendSentry: asks Xen about the guest while the control thread cannot, because it waits for
// xenstored. A guest may be suspended and go on at another host however long xenstored hangs here:
// its disks must stop all the same.
//
// Owned by the guest's process. A thread of its own, which sleeps as long as calls of xenstore
// return soon.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/core_dumps.h"
#include "base/result.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"
#include "multipath/guest_state.h"

namespace iscsi_blkback {

class SuspendSentry {
 public:
  // The guest may not run any more; from the sentry's thread, again and again, and must not block.
  using Tell = std::function<void(GuestState state)>;

  // domains: nobody else's. The error: no thread or no memory for it.
  [[nodiscard]] static Result<std::unique_ptr<SuspendSentry>> start(
      std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell);
  ~SuspendSentry();
  SuspendSentry(const SuspendSentry&) = delete;
  SuspendSentry& operator=(const SuspendSentry&) = delete;

  // Control thread only: around what may wait for xenstored. after_doubt: once the call is over
  // in which something was told, since the state is to be asked for and told anew.
  [[nodiscard]] Result<std::unique_ptr<XenStore>> watch_store(
      const std::function<Result<std::unique_ptr<XenStore>>()>& open);
  void on_doubt_over(std::function<void()> after_doubt) { after_doubt_ = std::move(after_doubt); }

  // Longer than calls take; see GuestWatch::kDoubt.
  static constexpr std::chrono::milliseconds kPatience{50};
  static constexpr std::chrono::milliseconds kInterval{100};

  // A call is under way as long as it exists.
  class Call {
   public:
    explicit Call(SuspendSentry& sentry) : sentry_(sentry) { sentry_.begin(); }
    ~Call() { sentry_.end(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    SuspendSentry& sentry_;
  };

 private:
  SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell);
  void begin();
  void end();
  void run();
  void ask();

  const std::unique_ptr<DomainInfo> domains_;
  const DomainId guest_;
  const Tell tell_;
  std::function<void()> after_doubt_;  // control thread's
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t calls_ = 0;  // under way (they nest) ...
  std::uint64_t ended_ = 0;  // ... and over
  bool told_ = false;        // during those that are under way
  bool stops_ = false;
  std::unique_ptr<OwnStackThread> thread_;
};

}  // namespace iscsi_blkback
