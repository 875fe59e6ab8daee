#include "multipath/fencing/predecessor_fence.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace iscsi_blkback {
namespace {

// One portal's time; then the next one is tried.
constexpr std::chrono::milliseconds kPortalTime{2000};
constexpr std::chrono::milliseconds kBetweenTries{1000};
// A path of the disk that has the same nexus is mostly about to log in: this long it is waited for.
constexpr std::chrono::milliseconds kOwnLoginTime{500};

}  // namespace

// One nexus, until it has been reinstated or is wanted no more.
class PredecessorFence::Attempt final : public SessionObserver {
 public:
  Attempt(PredecessorFence& fence, const PredecessorPath& predecessor, const BarrierNexus& nexus,
          const SessionOptions& like)
      : fence_(fence),
        predecessor_(predecessor),
        nexus_(nexus),
        options_(like),
        path_observer_(*this),
        turn_(
            fence.fencing_.budget,
            [](void* self) noexcept { static_cast<Attempt*>(self)->on_turn(); }, this),
        timer_(
            fence.reactor_, [](void* self) noexcept { static_cast<Attempt*>(self)->on_timer(); },
            this) {
    options_.initiator_name = nexus.initiator_name;
    options_.isid = nexus.isid;
    options_.session_number = nexus.session_number;
    options_.other_addresses.clear();  // those are the other path's
    options_.interface_binding = nexus.interface_binding;
    options_.max_commands = 1;
    for (Session* session : fence.owner_.path_sessions()) {
      path_added(*session);
    }
    timer_.start_after(own_path_ != nullptr ? Duration(kOwnLoginTime) : Duration::zero());
  }
  ~Attempt() {
    ISCSI_BLKBACK_ASSERT(session_ == nullptr);
    watch(nullptr);
  }

  [[nodiscard]] const PredecessorPath& predecessor() const { return predecessor_; }
  [[nodiscard]] bool over() const { return done_ && session_ == nullptr; }
  [[nodiscard]] bool has_session() const { return session_ != nullptr; }
  [[nodiscard]] bool waits_for_session() const { return !done_ && waits_; }

  // The other attempts leave room for a session of this one.
  void start_session() {
    const std::vector<SocketAddress> portals = candidates();
    if (portals.empty()) {
      waits_ = false;
      timer_.start_after(kBetweenTries);  // a sibling may come up
      return;
    }
    if (!turn_.take()) {
      return;  // on_turn() follows
    }
    waits_ = false;
    options_.portal = portals[next_portal_++ % portals.size()];
    options_.portal_name = options_.portal.to_string();
    log_info("multipath", "{}: fencing the session of a process that has died",
             options_.portal_name);
    session_ = std::make_unique<Session>(fence_.reactor_, options_);
    session_->add_observer(*this);
    session_->start();
    timer_.start_after(kPortalTime);
  }

  // Perhaps from inside a round of the path's session through its observers, this one's among them:
  // it goes on listening until it is reaped.
  void end() {
    done_ = true;
    waits_ = false;
    timer_.stop();
    if (session_ == nullptr) {
      turn_.give_back();
    }
    stop_session();
    fence_.reap_.schedule();
  }

  // Of the same nexus, it does by its own logins what a session of this attempt would.
  void path_added(Session& session) {
    if (done_ || own_path_ != nullptr || !is_same_nexus(session.options())) {
      return;
    }
    watch(&session);
    if (session.state() == SessionState::logged_in) {
      session.ping();
    }
    stop_session();
  }
  void path_leaves(const Session& session) {
    if (own_path_ == &session) {
      watch(nullptr);
    }
  }

  // Later than its stop, when it is no longer on the stack.
  void reap_session() {
    if (std::exchange(session_gone_, false)) {
      session_.reset();
      turn_.give_back();
      stopping_ = false;
      if (!done_) {
        timer_.start_after(kBetweenTries);
      }
    }
  }

 private:
  // Where the attempts of this disk have as many sessions as they may, it stands in the line anew
  // when one of these has ended.
  void on_turn() {
    fence_.start_waiting();
    if (session_ == nullptr) {
      turn_.give_back();
    }
  }

  void watch(Session* session) {
    if (own_path_ != nullptr) {
      own_path_->remove_observer(path_observer_);
    }
    own_path_ = session;
    if (own_path_ != nullptr) {
      own_path_->add_observer(path_observer_);
    }
  }

  [[nodiscard]] bool is_same_nexus(const SessionOptions& options) const {
    return options.isid == nexus_.isid && options.target_name == nexus_.target_name &&
           options.initiator_name == nexus_.initiator_name;
  }

  // Where the dead session had logged in, and where that had led, unless a path of ours is about to
  // do so; then portals of the same group that answer.
  [[nodiscard]] std::vector<SocketAddress> candidates() const {
    std::vector<SocketAddress> portals;
    if (own_path_ == nullptr || is_of_another_group(*own_path_)) {
      portals.push_back(nexus_.portal);
      if (!(nexus_.login.portal == nexus_.portal)) {
        portals.push_back(nexus_.login.portal);
      }
    }
    for (const Session* session : fence_.owner_.path_sessions()) {
      if (session != own_path_ && session->state() == SessionState::logged_in &&
          session->options().target_name == nexus_.target_name && is_sibling(*session)) {
        portals.push_back(session->portal_address());
      }
    }
    return portals;
  }

  // The path has come in by another address of its name than the dead session: the ISID makes
  // another nexus there (RFC 7143 4.4.1), and a login to the old one does not end the path's.
  [[nodiscard]] bool is_of_another_group(const Session& path) const {
    const auto group = login_nexus(path).portal_group;
    return path.state() == SessionState::logged_in && group && nexus_.login.portal_group &&
           group != nexus_.login.portal_group;
  }

  // Whether this login has led to the nexus that the dead process had.
  [[nodiscard]] bool reinstates(const Session& session) const {
    return same_nexus(nexus_.login, login_nexus(session),
                      fence_.owner_.redirected_login_fences()) ||
           is_sibling(session);
  }
  // By a portal of the same portal group, as far as the disk vouches for what that means.
  [[nodiscard]] bool is_sibling(const Session& session) const {
    const bool redirected = was_redirected(session) || !(nexus_.login.portal == nexus_.portal);
    const auto group = login_nexus(session).portal_group;
    return group && group == nexus_.login.portal_group &&
           fence_.owner_.portal_group_fences() == PortalGroupFences::yes &&
           (!redirected || fence_.owner_.redirected_login_fences());
  }

  // Of the disk's path.
  class PathObserver final : public SessionObserver {
   public:
    explicit PathObserver(Attempt& attempt) : attempt_(attempt) {}
    void on_session_up(Session& session) noexcept override { attempt_.path_answers(session); }
    void on_session_down(Session& /*session*/, const Error& /*why*/) noexcept override {}
    void on_ping_answered(Session& session) noexcept override { attempt_.path_answers(session); }

   private:
    Attempt& attempt_;
  };
  void path_answers(const Session& session) {
    if (!done_ && reinstates(session)) {
      fenced();
    }
  }

  // Of this attempt's own session.
  void on_session_up(Session& session) noexcept override {
    if (!done_ && !stopping_ && reinstates(session)) {
      fenced();
    } else {
      stop_session();  // somewhere else: the next portal
    }
  }
  void on_session_down(Session& /*session*/, const Error& /*why*/) noexcept override {}

  void fenced() {
    log_info("multipath", "{}: the session of a process that has died is fenced",
             nexus_.portal.to_string());
    end();
    fence_.owner_.on_predecessor_fenced(predecessor_);
  }

  void on_timer() {
    if (session_ != nullptr) {
      stop_session();
    } else if (own_path_ == nullptr &&
               fence_.fencing_.sessions.has_session(nexus_.initiator_name, nexus_.target_name,
                                                    nexus_.isid)) {
      timer_.start_after(kBetweenTries);  // another disk's: a login would end it
    } else {
      waits_ = true;
      fence_.start_waiting();
    }
  }

  void stop_session() {
    if (session_ == nullptr || std::exchange(stopping_, true)) {
      return;
    }
    timer_.stop();
    session_->remove_observer(*this);
    session_->stop(
        [](void* self) noexcept {
          auto& attempt = *static_cast<Attempt*>(self);
          attempt.session_gone_ = true;
          attempt.fence_.reap_.schedule();
        },
        this);
  }

  PredecessorFence& fence_;
  const PredecessorPath predecessor_;
  const BarrierNexus nexus_;
  SessionOptions options_;
  PathObserver path_observer_;
  Session* own_path_ = nullptr;  // of the disk, of the same nexus
  std::unique_ptr<Session> session_;
  std::size_t next_portal_ = 0;
  bool stopping_ = false;  // session_ is
  bool session_gone_ = false;
  bool waits_ = false;  // for its turn to have a session
  bool done_ = false;
  FenceTurn turn_;  // while it has a session, or waits for its turn
  Timer timer_;
};

PredecessorFence::PredecessorFence(Reactor& reactor, SharedFencing& fencing, Owner& owner)
    : reactor_(reactor),
      fencing_(fencing),
      owner_(owner),
      reap_(
          reactor, [](void* self) noexcept { static_cast<PredecessorFence*>(self)->reap(); },
          this) {}

PredecessorFence::~PredecessorFence() {
  ISCSI_BLKBACK_ASSERT(idle());
}

void PredecessorFence::fence(const PredecessorPath& predecessor, const BarrierNexus& nexus,
                             const SessionOptions& like) {
  const bool under_way = std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& attempt) {
    return attempt->predecessor() == predecessor;
  });
  if (!under_way && !stopping_) {
    attempts_.push_back(std::make_unique<Attempt>(*this, predecessor, nexus, like));
  }
}

void PredecessorFence::keep_only(const std::vector<PredecessorPath>& wanted) {
  for (const std::unique_ptr<Attempt>& attempt : attempts_) {
    if (std::find(wanted.begin(), wanted.end(), attempt->predecessor()) == wanted.end()) {
      attempt->end();
    }
  }
}

void PredecessorFence::path_added(Session& session) {
  for (const std::unique_ptr<Attempt>& attempt : attempts_) {
    attempt->path_added(session);
  }
}

void PredecessorFence::path_leaves(Session& session) {
  for (const std::unique_ptr<Attempt>& attempt : attempts_) {
    attempt->path_leaves(session);
  }
}

void PredecessorFence::stop() {
  stopping_ = true;
  keep_only({});
  reap_.schedule();
}

void PredecessorFence::start_waiting() {
  std::size_t sessions = static_cast<std::size_t>(
      std::count_if(attempts_.begin(), attempts_.end(),
                    [](const auto& attempt) { return attempt->has_session(); }));
  for (const std::unique_ptr<Attempt>& attempt : attempts_) {
    if (attempt->waits_for_session() && sessions < kMaxSessions) {
      attempt->start_session();
      sessions += attempt->has_session() ? 1 : 0;
    }
  }
}

void PredecessorFence::reap() {
  for (const std::unique_ptr<Attempt>& attempt : attempts_) {
    attempt->reap_session();
  }
  std::erase_if(attempts_, [](const auto& attempt) { return attempt->over(); });
  start_waiting();
  if (stopping_ && idle()) {
    owner_.on_predecessor_fence_idle();  // may delete this
  }
}

}  // namespace iscsi_blkback
