// GuestSupervisor: decides which guests need a process and sees to it that each has one: started when a
// disk of ours appears, taken over when one is at work already, started again (ever more slowly)
// when it has ended while disks are left. Control thread of the service; tests give it a launcher
// of their own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/log_limits.h"
#include "blkback/guest/store_connection.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

// Starts, finds and watches processes; on_exit of GuestSupervisor hears of each one's end.
class GuestLauncher {
 public:
  virtual ~GuestLauncher() = default;
  [[nodiscard]] virtual Result<pid_t> start(DomainId guest) = 0;
  // The process that serves the guest already, watched from now on; nullopt: none. An error: there
  // may be one.
  [[nodiscard]] virtual Result<std::optional<pid_t>> adopt(DomainId guest) = 0;
};

struct ServedGuest {
  DomainId guest = 0;
  pid_t pid = 0;  // 0: waiting to be started again
  std::uint32_t restarts = 0;
  bool adopted = false;
};

class GuestSupervisor final : private StoreConnection::Client {
 public:
  // domains: null when they may not be asked; a process that is started for a guest that has ended
  // then finds that out by itself.
  GuestSupervisor(Reactor& control, StoreConnection::Factory open_store, GuestLauncher& launcher,
                  DomainId own_domain, DomainInfo* domains = nullptr);
  ~GuestSupervisor();
  GuestSupervisor(const GuestSupervisor&) = delete;
  GuestSupervisor& operator=(const GuestSupervisor&) = delete;

  // The error is the first connection's to xenstore.
  [[nodiscard]] Result<void> start();

  // A process has ended. clean: with status 0, so it had nothing left to serve.
  void on_exit(DomainId guest, bool clean);

  [[nodiscard]] std::vector<ServedGuest> guests() const;

  static constexpr std::chrono::milliseconds kMinimumGap{5};
  // What could not be read is read again.
  static constexpr std::chrono::milliseconds kReadRetry{1000};
  static constexpr std::chrono::milliseconds kRestartMin{200};
  static constexpr std::chrono::milliseconds kRestartMax{30000};
  // A process that ran for so long starts the waiting times anew when it ends.
  static constexpr std::chrono::seconds kStableAfter{60};
  static constexpr std::size_t kMaxGuests = 1024;

 private:
  struct Guest;

  // StoreConnection::Client.
  [[nodiscard]] Result<void> on_store_open(XenStore& store) override;
  void on_store_event(const WatchEvent& event) override;
  void on_store_lost() override {}

  void schedule_look();
  void look_later();
  void look();
  // False: what there is could not be read.
  [[nodiscard]] bool look_at(DomainId guest);
  [[nodiscard]] Result<std::vector<DomainId>> listed_guests();
  [[nodiscard]] Result<bool> has_disk_of_ours(DomainId guest);
  [[nodiscard]] bool has_ended(DomainId guest);
  void launch(Guest& guest);
  void wait_for_restart(Guest& guest);

  Reactor& control_;
  GuestLauncher& launcher_;
  DomainId own_domain_;
  DomainInfo* domains_;
  LogLimiter all_log_{kGuestLogLimit};  // of what is no single guest's
  LogLimiter read_log_{kMessageLimit, all_log_};
  LogLimiter full_log_{kMessageLimit, all_log_};
  StoreConnection connection_;
  std::map<DomainId, std::unique_ptr<Guest>> guests_;
  std::set<DomainId> due_;
  bool all_due_ = false;
  TimePoint last_look_{};
  Timer look_timer_;
};

}  // namespace iscsi_blkback
