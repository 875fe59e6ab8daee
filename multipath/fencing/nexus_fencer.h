// NexusFencer: fences the nexus of a lost session through a sibling portal, so that writes that
// wait for the fence need not wait until the lost portal is back. One for all disks of a process
// (SharedFencing), because disks share sessions, and two fences of one session would end each other.
// How many fence sessions there may be at a time: session_budget.h. Reactor thread.
//
// How: a login with the lost session's ISID and TSIH 0 to another portal of the same target portal
// group makes the target terminate the old session's tasks (session reinstatement, RFC 7143 6.3.5).
// The fence session logs out as soon as it is in. But for the portal it has the lost session's own
// options: disks may have credentials of their own for a target. Portals whose tags are equal are
// of the same group as long as they are of the same node, which no target tells: it is done only
// for disks that vouch for their target (PortalGroupFences), or where a trial has shown it, for the
// lost login and that of the sibling, which must answer after the fence's login, because its
// address may have moved to another node. Trials begin a moment after sessions have come up, one at
// a time; nothing waits for them. Where a redirect has led, to whichever node, is neither fenced in
// this way nor a fence, but for the disks that vouch for that, too
// (MultipathOptions::redirected_login_fences).
//
// Two sessions of one ISID end each other, so the fence must not fight with the lost session's own
// next login, which is a fence itself:
//  - when the session comes up by itself, the fence session stops at once, whatever it was doing,
//    and what it says after that is ignored;
//  - a fence session that has logged in has done its work and stops at once, before the session's
//    own next login can meet it; if that login came first, the target has ended the fence session;
//  - what remains is a fence login that reaches the target just after the session's own: it ends
//    that session, which then logs in once more. So that this cannot go on, the fence of a session
//    that was lost just after it came up beside a fence session starts with a delay, twice as long
//    each time.
//  - a fence vouches only for logins of the lost session up to the one that was lost when the fence
//    session was started.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/reactor.h"
#include "initiator/session/session.h"
#include "multipath/fencing/portal_group_trial.h"
#include "multipath/fencing/session_budget.h"
#include "multipath/groups/path_policies.h"
#include "multipath/path/login_nexus.h"

namespace iscsi_blkback {

class NexusFencer final : private PortalGroupTrial::Owner {
 public:
  class Client {
   public:
    // Nothing that the session sent in a login to that nexus up to and including login_epoch can be
    // executed any more. Not called for the session's own logins; those the client observes itself.
    virtual void on_fenced(Session& session, const LoginNexus& nexus,
                           std::uint64_t login_epoch) noexcept = 0;
    // After remove() or withdraw() returned false: nothing of what this client gave up is left.
    virtual void on_withdrawn() noexcept = 0;
    // Whether a login through another portal of the portal group fences for this client; and
    // whether one that was redirected does, too.
    [[nodiscard]] virtual PortalGroupFences portal_group_fences() const noexcept = 0;
    [[nodiscard]] virtual bool redirected_login_fences() const noexcept = 0;
    // Whether trials may be made through its sessions now.
    [[nodiscard]] virtual bool wants_trials() const noexcept = 0;
    // Whether it uses that LUN, by that identity (not empty) or that number, and does not allow its
    // reset.
    [[nodiscard]] virtual bool refuses_reset(const std::string& wwid,
                                             const std::string& target_name,
                                             std::uint16_t lun) const noexcept = 0;

   protected:
    ~Client() = default;
  };

  NexusFencer(Reactor& reactor, SessionBudget& budget);
  ~NexusFencer();  // when all clients have withdrawn
  NexusFencer(const NexusFencer&) = delete;
  NexusFencer& operator=(const NexusFencer&) = delete;

  // The client uses the session: it may ask for fences of it, and the session's portal may serve
  // for the fences of others. Sessions outlive their clients' interest.
  void add(Session& session, Client& client);
  // The session is lost and writes that the client sent in its last login are outstanding.
  void fence(Session& lost, Client& client);
  // Takes one add() back. True: nothing of it is left now; false: a fence session that only this
  // client wanted is still going away, on_withdrawn follows.
  [[nodiscard]] bool remove(Session& session, Client& client);
  // The client is no longer interested in anything. True: nothing is left now; false: a fence
  // session that only this client wanted is still going away, on_withdrawn follows.
  [[nodiscard]] bool withdraw(Client& client);
  // The client wants trials, or wants none any more: one of its sessions that is under way ends.
  void look_for_trials_soon();
  void stop_trials(const Client& client);
  // Whether a trial has shown that the last logins of both were at one target.
  [[nodiscard]] bool one_nexus_space(const Session& one, const Session& other) const {
    return spaces_.same(one, other);
  }
  // Of the session's last login; see NexusSpaces.
  [[nodiscard]] NexusSpaces::Number nexus_space(const Session& session) const {
    return spaces_.number(session);
  }
  // A trial of the two has not shown that.
  [[nodiscard]] bool tried_in_vain(const Session& one, const Session& other) const {
    return spaces_.tried_in_vain(one, other);
  }
  // Whether another client than the one asking does, over whichever session; see
  // Client::refuses_reset().
  [[nodiscard]] bool other_refuses_reset(const std::string& wwid, const std::string& target_name,
                                         std::uint16_t lun, const Client& asking) const;
  // Whether a client uses a session with this name and ISID at the target.
  [[nodiscard]] bool has_session(const std::string& initiator_name, const std::string& target_name,
                                 const Isid& isid) const;

 private:
  class Entry;

  // PortalGroupTrial::Owner
  void on_trial_over(TrialVerdict verdict) noexcept override;

  [[nodiscard]] Session* find_sibling(const Entry& lost) const;
  // Whether a login through the sibling would fence the lost session for the client.
  [[nodiscard]] bool fences_through(const Client& client, const Session& lost,
                                    const Session& sibling) const;
  [[nodiscard]] bool trial_is_wanted(const Entry& one, const Entry& other) const;
  void try_siblings();
  void look_for_trials();
  // The session, if it is known and logged in.
  [[nodiscard]] Session* session_up(const Session* session) const;
  void on_session_up(Session& session);
  void remove_finished();

  Reactor& reactor_;
  SessionBudget& budget_;
  LogLimiter log_limiter_;
  std::vector<std::unique_ptr<Entry>> entries_;
  Deferred remove_finished_;

  NexusSpaces spaces_;
  std::unique_ptr<PortalGroupTrial> trial_;
  NexusSpaces::Numbers trial_numbers_;  // of its sessions when it began
  std::vector<Client*> leaving_trial_;  // have withdrawn and wait for its end
  Timer trial_timer_;                   // the next look
};

}  // namespace iscsi_blkback
