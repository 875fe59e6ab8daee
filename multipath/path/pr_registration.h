// PrRegistration: what a path has registered for persistent reservations (SPC-4 5.13), by which PREEMPT
// AND ABORT can name its nexus, and how that is taken back when the path ends. Owned by Path.
// Reactor thread.
//
// A registration belongs to one nexus at one logical unit, and outlives the session. Registering and
// taking back are both a REGISTER AND IGNORE EXISTING KEY, because the key that is there may not be
// known: a process that was killed has left its own, or the answer to an earlier command was lost. Key 0
// takes back what this nexus has registered; where it has registered nothing, the command changes
// nothing. So it does no harm at another logical unit to which the LUN's number may have come to lead.
// The target may execute it late, when the path has been added again and the same nexus is in use: the
// new PrRegistration then registers once more.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/scsi/scsi_task.h"
#include "multipath/path/error_policy.h"
#include "multipath/path/login_nexus.h"
#include "multipath/path/registration_table.h"

namespace iscsi_blkback {

class PrRegistration final {
 public:
  class Owner {
   public:
    // What was outstanding has ended, or is waited for no longer.
    virtual void on_key_settled() noexcept = 0;
    // The target refuses the key: why.
    virtual void on_key_refused(const char* why) noexcept = 0;
    // The registration stays at the target: why.
    virtual void on_key_kept(const char* why) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // Of all that ends a disk or a path, this may hold it up for so long. What is not answered then
  // is the session's affair, and may still take the key back.
  static constexpr std::chrono::milliseconds kUnregisterTime{500};

  // The largest number of a host. It is the upper 24 bits of the host's keys, so that no two hosts
  // have the same one; the rest is the ISID without its first byte, which is that of the type
  // "random" in all of them.
  static constexpr std::uint64_t kMaxHostKey = 0xffffff;

  // host_key: see MultipathOptions::reservation_key; 0: nothing is registered.
  PrRegistration(Reactor& reactor, LogicalUnit& logical_unit, std::uint16_t lun,
                 std::uint64_t host_key, RegistrationTable& table, Owner& owner);
  ~PrRegistration();  // not registering()
  PrRegistration(const PrRegistration&) = delete;
  PrRegistration& operator=(const PrRegistration&) = delete;

  // Each nexus has its own, the same after a restart: an ISID is fixed for its path.
  [[nodiscard]] std::uint64_t value() const;

  // Registers it, if this login has not done so yet.
  void register_key();
  [[nodiscard]] bool registering() const { return registering_; }
  // In this login.
  [[nodiscard]] bool registered() const;
  // The nexus that has it, also while the session is down.
  [[nodiscard]] const std::optional<LoginNexus>& nexus() const { return nexus_; }

  // The target may have lost it, or may be about to lose what is just being registered.
  void invalidate() {
    registered_epoch_ = 0;
    invalidated_ = registering_;
  }
  // The target has it no longer: another path has preempted it, or it was given back.
  void gone_at_target();

  // Takes back what may be registered, where the session is up, and registers nothing any more.
  // Only when nothing of the path's is left to be fenced.
  void unregister();
  [[nodiscard]] bool unregistering() const { return timer_.armed(); }
  // Nothing is to be taken back: somebody else has the same nexus and logical unit.
  void disown() { ends_ = true; }
  // unregister() or disown() has been called.
  [[nodiscard]] bool ends() const { return ends_; }

 private:
  struct Return;

  void on_registered();
  void send_return();
  void on_returned(const ScsiTask& task);
  void on_timer();
  void stop_unregistering(const char* kept_because);

  LogicalUnit& logical_unit_;
  const std::uint16_t lun_;
  Session& session_;
  Reactor& reactor_;
  const std::uint64_t host_key_;
  RegistrationTable& table_;
  Owner& owner_;

  bool registering_ = false;
  bool invalidated_ = false;  // since it was sent
  bool maybe_at_target_ = false;
  bool stray_ = false;            // one was lost with its connection, and may yet arrive
  std::uint32_t attentions_ = 0;  // in a row
  std::uint64_t sent_epoch_ = 0;
  LoginNexus sent_nexus_;
  std::uint64_t registered_epoch_ = 0;  // the login in which it was; 0: it is not
  std::optional<LoginNexus> nexus_;
  ScsiTask task_;
  std::array<std::byte, kReserveOutListBytes> buffer_{};

  bool ends_ = false;
  Return* return_ = nullptr;  // with the session
  RetryState retries_;
  TimePoint give_up_at_{};
  Timer timer_;  // the next try, or the end of patience
};

}  // namespace iscsi_blkback
