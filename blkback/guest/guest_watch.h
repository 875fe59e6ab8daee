// GuestWatch: knows what becomes of the guest, by asking Xen again and again: soon after something
// that may have to do with it, else every second, more often while xenstored, which tells of such
// events, is away. A question that fails is asked again at once, then ever more slowly; and when
// the answer fails to come for kDoubt, the guest is in doubt: it may be suspended, and be about to
// go on elsewhere, so that nothing of it may be sent to a target until Xen has answered. A guest
// that runs then waits; it loses nothing.
//
// Owned by GuestBackend, control thread only. Questions block it, for microseconds.
#pragma once

#include <chrono>
#include <optional>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/guest_run_state.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

class GuestWatch {
 public:
  class Owner {
   public:
    // Null while xenstored cannot be reached.
    [[nodiscard]] virtual XenStore* store() = 0;
    // Xenstored says when a guest may have been suspended or have ended.
    [[nodiscard]] virtual bool is_told_of_the_guest() const = 0;
    // Of the guest that is known, all the time since the last question.
    [[nodiscard]] virtual bool maps_pages() const = 0;
    // Life, doubt or vm() has changed; from inside refresh(), too.
    virtual void on_guest_changed(const GuestRunState& before) = 0;

   protected:
    ~Owner() = default;
  };

  // domains: null when they may not be asked; only xenstore tells then. limiter: of the guest.
  GuestWatch(Reactor& control, DomainInfo* domains, DomainId guest, LogLimiter& limiter,
             Owner& owner);
  GuestWatch(const GuestWatch&) = delete;
  GuestWatch& operator=(const GuestWatch&) = delete;

  // Asks now; false: there is no answer, and it goes on asking by itself.
  bool refresh();
  void stop() { timer_.stop(); }

  [[nodiscard]] const GuestRunState& life() const { return life_; }
  [[nodiscard]] bool in_doubt() const { return in_doubt_; }
  // See GuestNow.
  [[nodiscard]] std::uint64_t vm() const { return vm_; }

  static constexpr std::chrono::milliseconds kInterval{1000};
  // While it is suspended, as nothing tells when it goes on where it is; and while nobody would
  // tell of a suspend.
  static constexpr std::chrono::milliseconds kShortInterval{100};
  static constexpr std::chrono::milliseconds kRetryMin{10};
  static constexpr std::chrono::milliseconds kRetryMax{1000};
  // A migrated guest goes on elsewhere some 100 ms after its suspend, at the earliest.
  static constexpr std::chrono::milliseconds kDoubt{50};

 private:
  // by_xen: who has, or has not, answered.
  [[nodiscard]] Result<DomainStatus> ask(bool& by_xen);
  void on_failure(const Error& why, bool by_xen);
  void on_timer();

  Reactor& control_;
  DomainInfo* domains_;
  DomainId guest_;
  Owner& owner_;
  GuestRunState life_;
  std::optional<DomainStatus> status_;  // as last answered
  std::uint64_t vm_ = 0;
  bool xen_has_answered_ = false;  // ever
  bool in_doubt_ = false;
  std::optional<TimePoint> fails_since_;
  std::chrono::milliseconds retry_delay_ = kRetryMin;
  LogLimiter failure_log_;
  Timer timer_;
};

}  // namespace iscsi_blkback
