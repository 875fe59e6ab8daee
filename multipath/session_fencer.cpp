#include "multipath/session_fencer.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>
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

}  // namespace

// One session that clients use, and the fence session for it while there is one.
class SessionFencer::Entry final : public SessionObserver {
 public:
  Entry(SessionFencer& fencer, Session& session)
      : fencer_(fencer),
        session_(&session),
        fence_observer_(*this),
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
    session_->remove_observer(*this);
    session_ = nullptr;
    if (fence_ == nullptr) {
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

  // Whether a fence through a sibling would be of use, and one that a redirect had a part in.
  [[nodiscard]] bool sibling_fences() const {
    return std::any_of(waiting_.begin(), waiting_.end(),
                       [](const Client* client) { return client->portal_group_fences(); });
  }
  [[nodiscard]] bool redirected_sibling_fences() const {
    return std::any_of(waiting_.begin(), waiting_.end(), [](const Client* client) {
      return client->portal_group_fences() && client->redirected_login_fences();
    });
  }

  void sibling_down(const Session& sibling) {
    if (fence_ != nullptr && sibling_ == &sibling) {
      stop_fence_.schedule();
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
    timer_.stop();
    session_up_at_ = fencer_.reactor_.now();
    fence_was_about_ = fence_ != nullptr;
    if (fence_ != nullptr) {
      stop_fence_.schedule();
    }
    fencer_.on_session_up(session);
  }

  void on_session_down(Session& session, const Error& /*why*/) noexcept override {
    for (const std::unique_ptr<Entry>& entry : fencer_.entries_) {
      entry->sibling_down(session);
    }
  }

  void on_timer() {
    if (fence_ != nullptr) {
      // Either the attempt has taken too long, or the last fence session is still going away.
      start_when_gone_ = stopping_;
      stop_fence_.schedule();
      return;
    }
    if (waiting_.empty() || session_->state() == SessionState::logged_in) {
      return;
    }
    sibling_ = fencer_.find_sibling(*this);
    if (sibling_ == nullptr) {
      waiting_for_sibling_ = true;
      return;
    }
    const SessionOptions& way = sibling_->options();
    SessionOptions options = session_->options();
    options.portal = way.portal;
    options.portal_name = way.portal_name;
    options.interface_binding = way.interface_binding;
    options.max_commands = 1;
    fence_epoch_ = session_->login_epoch();
    place_ = login_place(*session_);
    redirected_ = led_elsewhere(*session_) || led_elsewhere(*sibling_);
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
    const LoginPlace led_to = login_place(*fence_);
    stop_fence_.schedule();
    if (stopping_ || waiting_.empty() || !led_to.portal_group ||
        led_to.portal_group != place_.portal_group) {
      return;
    }
    const bool redirected = redirected_ || led_elsewhere(*fence_);
    const bool lost_again = session_->login_epoch() > fence_epoch_;
    std::vector<Client*> fenced;
    std::copy_if(clients_.begin(), clients_.end(), std::back_inserter(fenced),
                 [&](const Client* client) {
                   return client->portal_group_fences() &&
                          (!redirected || client->redirected_login_fences());
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
      client->on_fenced(*session_, place_, fence_epoch_);
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
    const bool start_now = std::exchange(start_when_gone_, false);
    if (!waiting_.empty()) {
      timer_.start_after(start_now ? Duration::zero() : kRetryInterval);
    }
  }

  [[nodiscard]] Session* last_sibling() const { return sibling_; }

 private:
  SessionFencer& fencer_;
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
  bool stopping_ = false;
  bool fence_gone_ = false;
  bool start_when_gone_ = false;
  Session* sibling_ = nullptr;  // of this or the last attempt; compared, not used
  std::uint64_t fence_epoch_ = 0;
  LoginPlace place_;         // of the login that it fences
  bool redirected_ = false;  // that login, or the sibling's
  Timer timer_;              // until the start; while fence_ runs, its deadline
  Deferred stop_fence_;
};

std::shared_ptr<SessionFencer> SessionFencer::of(Reactor& reactor) {
  // Per thread, so without a lock: a reactor belongs to one thread.
  thread_local std::unordered_map<Reactor*, std::weak_ptr<SessionFencer>> fencers;
  std::erase_if(fencers, [](const auto& item) { return item.second.expired(); });
  std::weak_ptr<SessionFencer>& slot = fencers[&reactor];
  std::shared_ptr<SessionFencer> fencer = slot.lock();
  if (fencer == nullptr) {
    fencer = std::make_shared<SessionFencer>(reactor);
    slot = fencer;
  }
  return fencer;
}

SessionFencer::SessionFencer(Reactor& reactor)
    : reactor_(reactor),
      remove_finished_(
          reactor,
          [](void* self) noexcept { static_cast<SessionFencer*>(self)->remove_finished(); }, this) {
}

SessionFencer::~SessionFencer() = default;

void SessionFencer::add(Session& session, Client& client) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      entry->add_client(client);
      return;
    }
  }
  entries_.push_back(std::make_unique<Entry>(*this, session));
  entries_.back()->add_client(client);
}

void SessionFencer::fence(Session& lost, Client& client) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &lost) {
      entry->want_fence(client);
      return;
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "fence of a session that was not added");
}

bool SessionFencer::remove(Session& session, Client& client) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      return entry->remove_once(client);
    }
  }
  ISCSI_BLKBACK_ASSERT(false && "a session that was not added");
  return true;
}

bool SessionFencer::withdraw(Client& client) {
  bool nothing_left = true;
  for (const std::unique_ptr<Entry>& entry : entries_) {
    nothing_left = entry->remove_client(client) && nothing_left;
  }
  return nothing_left;
}

bool SessionFencer::other_refuses_reset(const std::string& wwid, const std::string& target_name,
                                        std::uint16_t lun, const Client& asking) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
    return std::any_of(entry->clients().begin(), entry->clients().end(), [&](const Client* client) {
      return client != &asking && client->refuses_reset(wwid, target_name, lun);
    });
  });
}

bool SessionFencer::other_needs_key(const Session& session, std::uint16_t lun,
                                    const Client& asking) const {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      return std::any_of(entry->clients().begin(), entry->clients().end(), [&](Client* client) {
        return client != &asking && client->needs_key(session, lun);
      });
    }
  }
  return false;
}

bool SessionFencer::has_session(const std::string& initiator_name, const std::string& target_name,
                                const Isid& isid) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
    const Session* session = entry->session();
    return session != nullptr && session->options().isid == isid &&
           session->options().target_name == target_name &&
           session->options().initiator_name == initiator_name;
  });
}

void SessionFencer::key_taken_back(const Session& session, std::uint16_t lun) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() == &session) {
      for (Client* client : entry->clients()) {
        client->on_key_taken_back(session, lun);
      }
    }
  }
}

Session* SessionFencer::find_sibling(const Entry& lost) const {
  const SessionOptions& wanted = lost.session()->options();
  const std::optional<std::uint16_t> group = login_place(*lost.session()).portal_group;
  const bool takes_redirected = lost.redirected_sibling_fences();
  if (!group || !lost.sibling_fences() || (led_elsewhere(*lost.session()) && !takes_redirected)) {
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
        (led_elsewhere(*candidate) && !takes_redirected) ||
        login_place(*candidate).portal_group != group) {
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

void SessionFencer::on_session_up(Session& session) {
  for (const std::unique_ptr<Entry>& entry : entries_) {
    if (entry->session() != &session) {
      entry->try_sibling();
    }
  }
}

void SessionFencer::remove_finished() {
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
  std::erase_if(withdrawn, [&](Client* client) {  // other fence sessions of it still go away
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::unique_ptr<Entry>& entry) {
      return entry->is_leaving(*client);
    });
  });
  std::sort(withdrawn.begin(), withdrawn.end());
  withdrawn.erase(std::unique(withdrawn.begin(), withdrawn.end()), withdrawn.end());
  for (Client* client : withdrawn) {
    client->on_withdrawn();  // may delete the client and with it this fencer
  }
}

}  // namespace iscsi_blkback
