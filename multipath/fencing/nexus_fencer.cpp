#include "multipath/fencing/nexus_fencer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

// How long one try may take before another sibling portal is tried.
constexpr Duration kAttemptTimeout = milliseconds(5000);
constexpr Duration kRetryInterval = milliseconds(1000);
// A session that is lost so soon after it came up, while a fence session was about, was probably
// ended by that.
constexpr Duration kCollisionTime = milliseconds(1000);
constexpr Duration kFirstCollisionDelay = milliseconds(50);
constexpr Duration kMaxCollisionDelay = milliseconds(5000);
// After a login, before a trial: others come up, too.
constexpr Duration kTrialDelay = milliseconds(1000);
// While there is no room for the sessions of a trial.
constexpr Duration kTrialRetry = milliseconds(10000);
// Sessions of a trial.
constexpr std::size_t kTrialSessions = 2;
// NOP-Outs to a sibling; the first answer may have been on its way already.
constexpr int kSiblingQuestions = 2;

bool has(const std::vector<NexusFencer::Client*>& clients, const NexusFencer::Client& client) {
  return std::find(clients.begin(), clients.end(), &client) != clients.end();
}

}  // namespace

// One session that clients use, and the fence session for it while there is one.
class NexusFencer::Entry final : public SessionObserver {
 public:
  Entry(NexusFencer& fencer, Session& session)
      : fencer_(fencer),
        session_(&session),
        fence_observer_(*this),
        turn_(
            fencer.budget_, [](void* self) noexcept { static_cast<Entry*>(self)->on_turn(); },
            this),
        timer_(
            fencer.reactor_, [](void* self) noexcept { static_cast<Entry*>(self)->on_timer(); },
            this),
        stop_fence_(
            fencer.reactor_,
            [](void* self) noexcept { static_cast<Entry*>(self)->stop_fence_session(); }, this) {
    session.add_observer(*this);
  }
  ~Entry() {
    ISCSI_BLKBACK_ASSERT(fence_ == nullptr);
    if (session_ != nullptr) {
      session_->remove_observer(*this);
    }
  }

  [[nodiscard]] Session* session() const { return session_; }
  [[nodiscard]] bool finished() const { return session_ == nullptr && fence_ == nullptr; }

  void add_client(Client& client) { clients_.push_back(&client); }

  // True when the client has nothing left here.
  bool remove_client(Client& client) {
    std::erase(waiting_, &client);
    if (std::erase(clients_, &client) == 0) {
      return leaving_ != &client;
    }
    return !clients_.empty() || leave(client);
  }

  // The same for one add_client().
  bool remove_once(Client& client) {
    clients_.erase(std::find(clients_.begin(), clients_.end(), &client));
    if (std::find(clients_.begin(), clients_.end(), &client) == clients_.end()) {
      std::erase(waiting_, &client);
    }
    return !clients_.empty() || leave(client);
  }

  [[nodiscard]] bool is_leaving(const Client& client) const { return leaving_ == &client; }
  [[nodiscard]] const std::vector<Client*>& clients() const { return clients_; }
  [[nodiscard]] Client* take_leaving() { return std::exchange(leaving_, nullptr); }

  // The last client has gone. True when it has nothing left here.
  bool leave(Client& client) {
    timer_.stop();
    answers_left_ = 0;
    fencer_.spaces_.forget(*session_);
    session_->remove_observer(*this);
    session_ = nullptr;
    if (fence_ == nullptr) {
      turn_.give_back();
      fencer_.remove_finished_.schedule();
      return true;
    }
    leaving_ = &client;
    stop_fence_.schedule();
    return false;
  }

  void want_fence(Client& client) {
    if (std::find(waiting_.begin(), waiting_.end(), &client) != waiting_.end()) {
      return;
    }
    waiting_.push_back(&client);
    if (waiting_.size() > 1) {
      try_sibling();  // one that is not good enough for the others may be so for this one
      return;
    }
    const bool collided =
        fence_was_about_ && fencer_.reactor_.now() - session_up_at_ < kCollisionTime;
    fence_was_about_ = false;
    delay_ = !collided                    ? Duration::zero()
             : delay_ == Duration::zero() ? kFirstCollisionDelay
                                          : std::min(delay_ * 2, kMaxCollisionDelay);
    timer_.start_after(delay_);
  }

  // Perhaps there is the sibling that was missing.
  void try_sibling() {
    if (!waiting_.empty() && fence_ == nullptr && waiting_for_sibling_) {
      waiting_for_sibling_ = false;
      timer_.start_after(Duration::zero());
    }
  }

  // Whether a fence through that sibling would be of use.
  [[nodiscard]] bool sibling_fences(const Session& sibling) const {
    return std::any_of(waiting_.begin(), waiting_.end(), [&](const Client* client) {
      return fencer_.fences_through(*client, *session_, sibling);
    });
  }

  void sibling_down(const Session& sibling) {
    if (sibling_ != &sibling) {
      return;
    }
    answers_left_ = 0;
    if (fence_ != nullptr) {
      stop_fence_.schedule();
    }
  }
  void sibling_answers(Session& sibling) {
    if (sibling_ != &sibling || answers_left_ == 0) {
      return;
    }
    if (--answers_left_ != 0) {
      sibling.ping();
    } else {
      tell_fenced(PortalGroupFences::trial);
    }
  }

 private:
  // Of the fence session; apart from the lost session's callbacks.
  class FenceObserver final : public SessionObserver {
   public:
    explicit FenceObserver(Entry& entry) : entry_(entry) {}
    void on_session_up(Session& /*session*/) noexcept override { entry_.on_fence_up(); }
    void on_session_down(Session& /*session*/, const Error& /*why*/) noexcept override {
      entry_.stop_fence_.schedule();
    }

   private:
    Entry& entry_;
  };

  void on_session_up(Session& session) noexcept override {
    waiting_.clear();  // this login was the fence
    waiting_for_sibling_ = false;
    answers_left_ = 0;
    timer_.stop();
    session_up_at_ = fencer_.reactor_.now();
    fence_was_about_ = fence_ != nullptr;
    if (fence_ != nullptr) {
      stop_fence_.schedule();
    } else {
      turn_.give_back();
    }
    fencer_.on_session_up(session);
  }

  void on_session_down(Session& session, const Error& /*why*/) noexcept override {
    for (const std::unique_ptr<Entry>& entry : fencer_.entries_) {
      entry->sibling_down(session);
    }
  }
  void on_ping_answered(Session& session) noexcept override {
    for (const std::unique_ptr<Entry>& entry : fencer_.entries_) {
      entry->sibling_answers(session);
    }
  }

  void on_timer() {
    if (fence_ != nullptr) {
      // Either the attempt has taken too long, or the last fence session is still going away.
      start_when_gone_ = stopping_;
      stop_fence_.schedule();
      return;
    }
    start_fence_session();
  }
  void on_turn() {
    start_fence_session();
    if (fence_ == nullptr) {
      turn_.give_back();
    }
  }

  void start_fence_session() {
    if (waiting_.empty() || session_->state() == SessionState::logged_in) {
      return;
    }
    Session* const sibling = fencer_.find_sibling(*this);
    if (sibling == nullptr) {
      sibling_ = nullptr;
      waiting_for_sibling_ = true;
      return;
    }
    if (!turn_.take()) {
      return;  // on_turn() follows
    }
    sibling_ = sibling;
    const SessionOptions& way = sibling_->options();
    SessionOptions options = session_->options();
    options.portal = sibling_->portal_address();
    options.other_addresses.clear();  // those are the lost session's
    options.portal_name = way.portal_name;
    options.interface_binding = way.interface_binding;
    options.max_commands = 1;
    fence_epoch_ = session_->login_epoch();
    nexus_ = login_nexus(*session_);
    redirected_ = was_redirected(*session_) || was_redirected(*sibling_);
    proven_ = fencer_.spaces_.same(*session_, *sibling_);
    answers_left_ = 0;
    log_limited(fencer_.log_limiter_, fencer_.reactor_.now(), LogLevel::info, "multipath",
                "{}: fencing the lost session through portal {}", session_->options().portal_name,
                options.portal_name);
    fence_ = std::make_unique<Session>(fencer_.reactor_, std::move(options));
    fence_->add_observer(fence_observer_);
    stopping_ = false;
    fence_->start();
    timer_.start_after(kAttemptTimeout);
  }

  void on_fence_up() {
    const LoginNexus led_to = login_nexus(*fence_);
    stop_fence_.schedule();
    if (stopping_ || waiting_.empty() || !led_to.portal_group ||
        led_to.portal_group != nexus_.portal_group) {
      return;
    }
    redirected_ = redirected_ || was_redirected(*fence_);
    Session* const sibling = fencer_.session_up(sibling_);
    if (proven_ && !redirected_ && sibling != nullptr) {
      answers_left_ = kSiblingQuestions;
      sibling->ping();
    }
    tell_fenced(PortalGroupFences::yes);
  }

  // Those that take such a login as a fence.
  void tell_fenced(PortalGroupFences taken_by) {
    const bool lost_again = session_->login_epoch() > fence_epoch_;
    std::vector<Client*> fenced;
    std::copy_if(clients_.begin(), clients_.end(), std::back_inserter(fenced),
                 [&](const Client* client) {
                   return client->portal_group_fences() == taken_by &&
                          (!redirected_ || client->redirected_login_fences());
                 });
    if (fenced.empty()) {
      return;
    }
    log_limited(fencer_.log_limiter_, fencer_.reactor_.now(), LogLevel::info, "multipath",
                "{}: the lost session is fenced", session_->options().portal_name);
    for (Client* client : fenced) {
      if (!lost_again) {
        std::erase(waiting_, client);
      }
      client->on_fenced(*session_, nexus_, fence_epoch_);
    }
  }

  void stop_fence_session() {
    if (fence_ == nullptr || stopping_) {
      return;
    }
    stopping_ = true;
    timer_.stop();
    fence_->remove_observer(fence_observer_);
    fence_->stop([](void* self) noexcept { static_cast<Entry*>(self)->on_fence_stopped(); }, this);
  }

  void on_fence_stopped() {
    fencer_.remove_finished_.schedule();
    fence_gone_ = true;
  }

 public:
  // Later than on_fence_stopped, when the session is no longer on the stack.
  void reap_fence() {
    if (!std::exchange(fence_gone_, false)) {
      return;
    }
    fence_.reset();
    turn_.give_back();
    const bool start_now = std::exchange(start_when_gone_, false);
    if (!waiting_.empty()) {
      timer_.start_after(start_now ? Duration::zero() : kRetryInterval);
    }
  }

  [[nodiscard]] Session* last_sibling() const { return sibling_; }

 private:
  NexusFencer& fencer_;
  Session* session_;  // null when no client is left
  std::vector<Client*> clients_;
  Client* leaving_ = nullptr;  // the last client, waiting for the fence session to go

  std::vector<Client*> waiting_;  // those of clients_ that wait for the fence
  bool waiting_for_sibling_ = false;
  TimePoint session_up_at_{};
  bool fence_was_about_ = false;  // when the session came up
  Duration delay_{};              // of the last start

  std::unique_ptr<Session> fence_;
  FenceObserver fence_observer_;
  FenceTurn turn_;  // while there is a fence session, or one that waits for its turn
  bool stopping_ = false;
  bool fence_gone_ = false;
  bool start_when_gone_ = false;
  Session* sibling_ = nullptr;  // of this or the last attempt; compared, not used
  std::uint64_t fence_epoch_ = 0;
  LoginNexus nexus_;         // of the login that it fences
  bool redirected_ = false;  // that login, the sibling's or the fence's
  bool proven_ = false;      // the first two are of one nexus space
  int answers_left_ = 0;     // of the sibling, until those are told that rely on the trial
  Timer timer_;              // until the start; while fence_ runs, its deadline
  Deferred stop_fence_;
};

NexusFencer::NexusFencer(Reactor& reactor, SessionBudget& budget)
    : reactor_(reactor),
      budget_(budget),
      remove_finished_(
          reactor, [](void* self) noexcept { static_cast<NexusFencer*>(self)->remove_finished(); },
          this),
      trial_timer_(
          reactor, [](void* self) noexcept { static_cast<NexusFencer*>(self)->look_for_trials(); },
          this) {}

NexusFencer::~NexusFencer() {
  ISCSI_BLKBACK_ASSERT(trial_ == nullptr);
}

void NexusFencer::add(Session& session, Client& client) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      entry->add_client(client);
      return;
    }
  }
  entries_.push_back(std::make_unique<Entry>(*this, session));
  entries_.back()->add_client(client);
  if (session.state() == SessionState::logged_in) {
    on_session_up(session);
  }
}

void NexusFencer::fence(Session& lost, Client& client) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &lost) {
      entry->want_fence(client);
      return;
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "fence of a session that was not added");
}

bool NexusFencer::remove(Session& session, Client& client) {
  if (trial_ != nullptr && trial_->concerns(session)) {
    trial_->cancel();
  }
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      return entry->remove_once(client);
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "a session that was not added");
  return true;
}

bool NexusFencer::withdraw(Client& client) {
  stop_trials(client);
  bool nothing_left = true;
  if (trial_ != nullptr && trial_->ending()) {
    leaving_trial_.push_back(&client);
    nothing_left = false;
  }
  for (const std::unique_ptr<Entry>& entry : entries_) {
    nothing_left = entry->remove_client(client) && nothing_left;
  }
  return nothing_left;
}

bool NexusFencer::other_refuses_reset(const std::string& wwid, const std::string& target_name,
                                      std::uint16_t lun, const Client& asking) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
    return std::any_of(entry->clients().begin(), entry->clients().end(), [&](const Client* client) {
      return client != &asking && client->refuses_reset(wwid, target_name, lun);
    });
  });
}

bool NexusFencer::has_session(const std::string& initiator_name, const std::string& target_name,
                              const Isid& isid) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
    const Session* session = entry->session();
    return session != nullptr && session->options().isid == isid &&
           session->options().target_name == target_name &&
           session->options().initiator_name == initiator_name;
  });
}

Session* NexusFencer::find_sibling(const Entry& lost) const {
  const SessionOptions& wanted = lost.session()->options();
  const std::optional<std::uint16_t> group = login_nexus(*lost.session()).portal_group;
  if (!group) {
    return nullptr;
  }
  // After a failed attempt the one behind the last sibling is tried first.
  Session* first = nullptr;
  bool behind_last = false;
  for (const std::unique_ptr<Entry>& entry : entries_) {
    Session* candidate = entry->session();
    if (candidate == nullptr || candidate == lost.session() ||
        candidate->state() != SessionState::logged_in ||
        candidate->options().target_name != wanted.target_name ||
        login_nexus(*candidate).portal_group != group || !lost.sibling_fences(*candidate)) {
      continue;
    }
    if (behind_last) {
      return candidate;
    }
    behind_last = candidate == lost.last_sibling();
    first = first == nullptr ? candidate : first;
  }
  return first;
}

Session* NexusFencer::session_up(const Session* session) const {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == session && session != nullptr) {
      return session->state() == SessionState::logged_in ? entry->session() : nullptr;
    }
  }
  return nullptr;
}

bool NexusFencer::fences_through(const Client& client, const Session& lost,
                                 const Session& sibling) const {
  const bool redirected = was_redirected(lost) || was_redirected(sibling);
  switch (client.portal_group_fences()) {
    case PortalGroupFences::no:
      return false;
    case PortalGroupFences::trial:
      return !redirected && spaces_.same(lost, sibling);
    case PortalGroupFences::yes:
      return !redirected || client.redirected_login_fences();
  }
  return false;
}

void NexusFencer::on_session_up(Session& session) {
  spaces_.logged_in(session);
  look_for_trials_soon();
  try_siblings();
}

void NexusFencer::look_for_trials_soon() {
  const bool wanted =
      std::any_of(entries_.begin(), entries_.end(), [](const std::unique_ptr<Entry>& entry) {
        return std::any_of(entry->clients().begin(), entry->clients().end(),
                           [](const Client* client) { return client->wants_trials(); });
      });
  if (wanted) {
    trial_timer_.start_after(kTrialDelay);
  }
}

// A fence that found no sibling may find one now.
void NexusFencer::try_siblings() {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    entry->try_sibling();
  }
}

bool NexusFencer::trial_is_wanted(const Entry& one, const Entry& other) const {
  const Session* first = one.session();
  const Session* second = other.session();
  for (const Session* session : {first, second}) {
    if (session == nullptr || session->state() != SessionState::logged_in ||
        was_redirected(*session) || !login_nexus(*session).portal_group) {
      return false;
    }
  }
  if (first->options().target_name != second->options().target_name ||
      login_nexus(*first).portal_group != login_nexus(*second).portal_group) {
    return false;
  }
  const bool wanted =
      std::any_of(one.clients().begin(), one.clients().end(), [&](const Client* client) {
        return has(other.clients(), *client) && client->wants_trials();
      });
  // One that does not want them, a suspended disk, is not disturbed by those of others.
  const auto allowed = [](const Entry& entry) {
    return std::all_of(entry.clients().begin(), entry.clients().end(), [](const Client* client) {
      return client->wants_trials() || client->portal_group_fences() != PortalGroupFences::trial;
    });
  };
  return wanted && allowed(one) && allowed(other);
}

void NexusFencer::look_for_trials() {
  if (trial_ != nullptr) {
    return;  // looked for when it is over
  }
  TimePoint next = TimePoint::max();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    for (std::size_t j = i + 1; j < entries_.size(); ++j) {
      if (!trial_is_wanted(*entries_[i], *entries_[j])) {
        continue;
      }
      Session& first = *entries_[i]->session();
      Session& second = *entries_[j]->session();
      const SessionOptions& options = first.options();
      const TimePoint due = spaces_.trial_due(first, second);
      if (due > reactor_.now()) {
        next = std::min(next, due);
      } else if (!has_session(options.initiator_name, options.target_name,
                              trial_isid(options.isid))) {
        if (!budget_.take(kTrialSessions)) {
          next = std::min(next, reactor_.now() + kTrialRetry);
          continue;
        }
        trial_timer_.stop();
        trial_numbers_ = {spaces_.number(first), spaces_.number(second)};
        trial_ = std::make_unique<PortalGroupTrial>(reactor_, first, second,
                                                    static_cast<PortalGroupTrial::Owner&>(*this));
        return;
      }
    }
  }
  if (next != TimePoint::max()) {
    trial_timer_.start_at(next);
  }
}

void NexusFencer::stop_trials(const Client& client) {
  const bool concerned =
      trial_ != nullptr &&
      std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
        return entry->session() != nullptr && trial_->concerns(*entry->session()) &&
               has(entry->clients(), client);
      });
  if (concerned) {
    trial_->cancel();
  }
}

void NexusFencer::on_trial_over(TrialVerdict verdict) noexcept {
  const NexusSpaces::Pair sessions = trial_->sessions();
  trial_.reset();
  budget_.give_back(kTrialSessions);
  const auto known = [this](const Session* session) {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const auto& entry) { return entry->session() == session; });
  };
  if (known(sessions.first) && known(sessions.second)) {
    spaces_.tried(sessions, trial_numbers_, verdict, reactor_.now());
    const std::string& first = sessions.first->options().portal_name;
    const std::string& second = sessions.second->options().portal_name;
    switch (verdict) {
      case TrialVerdict::proven:
        log_info("multipath", "{} and {}: a login through one fences what the other has lost",
                 first, second);
        try_siblings();
        break;
      case TrialVerdict::refuted:
        log_warning("multipath",
                    "{} and {} have one portal group tag, but do not know of each other's "
                    "sessions: what one has lost waits for a login there, or for quiesce_time",
                    first, second);
        break;
      case TrialVerdict::inconclusive:
        log_info("multipath", "{} and {}: not found out whether they know of each other's sessions",
                 first, second);
        break;
    }
  }
  trial_timer_.start_after(Duration::zero());
  std::vector<Client*> withdrawn = std::exchange(leaving_trial_, {});
  std::erase_if(withdrawn, [&](Client* client) {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const auto& entry) { return entry->is_leaving(*client); });
  });
  for (Client* client : withdrawn) {
    client->on_withdrawn();  // may delete the client
  }
}

void NexusFencer::remove_finished() {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    entry->reap_fence();
  }
  std::vector<Client*> withdrawn;
  std::erase_if(entries_, [&](const std::unique_ptr<Entry>& entry) {
    if (!entry->finished()) {
      return false;
    }
    if (Client* client = entry->take_leaving(); client != nullptr) {
      withdrawn.push_back(client);
    }
    return true;
  });
  std::erase_if(withdrawn, [&](Client* client) {  // other sessions of it still go away
    return has(leaving_trial_, *client) ||
           std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
             return entry->is_leaving(*client);
           });
  });
  std::sort(withdrawn.begin(), withdrawn.end());
  withdrawn.erase(std::unique(withdrawn.begin(), withdrawn.end()), withdrawn.end());
  for (Client* client : withdrawn) {
    client->on_withdrawn();  // may delete the client
  }
}

}  // namespace iscsi_blkback
