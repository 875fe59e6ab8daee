// SessionPool: the sessions of one guest's process: one for each (target, portal address,
// interface, number), shared by all disks of the guest that need it. Started when the first needs
// it, stopped when the last has gone. Reactor thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "base/result.h"
#include "blkback/xen/grant_table.h"
#include "initiator/session.h"

namespace iscsi_blkback {

// RFC 7143 11.12.5, type "random" (0x80): a 24-bit hash of what the session leads to, then the
// guest's number as qualifier. A restarted process of the same guest comes to the same ISID, so
// that its login ends what the old one left at the target (6.3.5); two guests never share one.
// attempt: 0, then 1, 2 ... while the ISID is taken within this process.
[[nodiscard]] Isid make_isid(DomainId own_domain, DomainId guest, const std::string& target_name,
                             const SocketAddress& portal, const InterfaceBinding& interface,
                             std::uint16_t session_number, std::uint32_t attempt);

class SessionPool {
 public:
  static constexpr std::size_t kMaxSessions = 256;

  SessionPool(Reactor& reactor, DomainId own_domain, DomainId guest);
  ~SessionPool();  // empty() only
  SessionPool(const SessionPool&) = delete;
  SessionPool& operator=(const SessionPool&) = delete;

  // options: complete but for the ISID, which is filled in here. A session that exists already
  // keeps its options. exhausted: kMaxSessions exist.
  [[nodiscard]] Result<Session*> acquire(SessionOptions options);
  // The last user's release stops the session (logout, bounded by its logout_timeout). Nothing of
  // the user's may be at the session any more, and it must not use it afterwards.
  void release(Session& session);

  // This user waits no longer for the session's outstanding commands. When no user does, and the
  // session has some, its connection is dropped (RST), which completes them. Before release().
  void give_up(Session& session);

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // Whether a released session is still on its way out.
  [[nodiscard]] bool stopping() const;
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  // Called, from the reactor, whenever a stopped session has gone.
  void on_change(void (*callback)(void* owner) noexcept, void* owner);

 private:
  struct Entry;
  Entry& entry_of(const Session& session);
  [[nodiscard]] bool isid_taken(const Isid& isid) const;
  void collect();

  Reactor& reactor_;
  DomainId own_domain_;
  DomainId guest_;
  std::list<std::unique_ptr<Entry>> entries_;
  Deferred collect_;
  void (*callback_)(void* owner) noexcept = nullptr;
  void* callback_owner_ = nullptr;
};

}  // namespace iscsi_blkback
