// SessionPool: the sessions of one reactor: one for each (target, portal address, interface, number)
// and settings of the session, shared by all disks of the reactor that need it. Started when the
// first needs it, stopped when the last has gone. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "base/reactor.h"
#include "base/result.h"
#include "initiator/session/session.h"
#include "multipath/attach/session_isid.h"
#include "multipath/fencing/shared_fencing.h"

namespace iscsi_blkback {

class SessionPool {
 public:
  // The ISID of a session with these options. attempt: 0, then 1, 2 ... while the ISID is one that
  // another session of the pool has. variant: see session_isid.h.
  using IsidRule = std::function<Isid(const SessionOptions& options, std::uint32_t variant,
                                      std::uint32_t attempt)>;

  // barrier_jobs: see SharedFencing.
  SessionPool(Reactor& reactor, IsidRule isid_rule, BarrierJobs* barrier_jobs = nullptr);
  // Of a guest's process: make_isid() is the rule. host_id: see host_id.h.
  SessionPool(Reactor& reactor, DomainId own_domain, DomainId guest, std::string host_id = {},
              BarrierJobs* barrier_jobs = nullptr, ReactorPlace place = {});
  ~SessionPool();  // empty() only
  SessionPool(const SessionPool&) = delete;
  SessionPool& operator=(const SessionPool&) = delete;

  // options: complete but for the ISID, which is filled in here. A session that exists already is
  // shared where it has the same options, but for portal_name and discovery_chap, which are no
  // affair of the session's. variant: see session_isid.h. exhausted: the SessionBudget has no room.
  //
  // While a former session with the same ISID is being stopped the new one is not started, because
  // its login would end the other one's logout: it waits for that, logout_timeout at most.
  [[nodiscard]] Result<Session*> acquire(SessionOptions options, std::uint32_t variant = 0);
  // The last user's release stops the session (logout, bounded by its logout_timeout). Nothing of
  // the user's may be at the session any more, and it must not use it afterwards.
  void release(Session& session);

  // This user waits no longer for the session's outstanding commands. When no user does, and the
  // session has some, its connection is dropped (RST), which completes them. Before release().
  void abort_outstanding(Session& session);

  // For the disks over these sessions.
  [[nodiscard]] SharedFencing& fencing() { return fencing_; }

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // Whether a released session is still on its way out.
  [[nodiscard]] bool stopping() const;
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  // Called, from the reactor, whenever a stopped session has gone.
  void on_change(void (*callback)(void* owner) noexcept, void* owner);

 private:
  struct Entry;
  Entry& entry_of(const Session& session);
  [[nodiscard]] bool used_by_live_session(const Isid& isid) const;
  void start_or_wait(Entry& entry);
  void collect();

  Reactor& reactor_;
  const IsidRule isid_rule_;
  SharedFencing fencing_;
  std::list<std::unique_ptr<Entry>> entries_;
  Deferred collect_;
  void (*callback_)(void* owner) noexcept = nullptr;
  void* callback_owner_ = nullptr;
};

}  // namespace iscsi_blkback
