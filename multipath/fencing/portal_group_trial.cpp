#include "multipath/fencing/portal_group_trial.h"

#include <algorithm>
#include <utility>

#include "multipath/path/login_nexus.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

// For a login, and for the answers of the disks' own sessions.
constexpr Duration kAnswerTime = milliseconds(5000);
// So long the target may take to end the first session.
constexpr Duration kEndTime = milliseconds(3000);
// What does not end in this time is not waited for.
constexpr milliseconds kLogoutTime{1000};
// NOP-Outs to each session.
constexpr int kQuestions = 2;

constexpr std::size_t kQualifierByte = 4;
constexpr std::uint8_t kNoGuest = 0x80;
constexpr std::uint8_t kNoTool = 0x40;

}  // namespace

TrialStep next_step(const TrialFacts& facts) {
  if (facts.disturbed) {
    return TrialStep::give_up;
  }
  if (facts.time_over) {
    return facts.second_up && !facts.first_ended ? TrialStep::end_refuted : TrialStep::give_up;
  }
  if (!facts.first_up) {
    return TrialStep::wait;
  }
  if (!facts.second_started) {
    return facts.first_ended ? TrialStep::give_up : TrialStep::start_second;
  }
  if (!facts.second_up || !facts.first_ended) {
    return TrialStep::wait;
  }
  if (!facts.asked) {
    return TrialStep::ask;
  }
  return facts.answered ? TrialStep::end_proven : TrialStep::wait;
}

Isid trial_isid(const Isid& isid) {
  Isid result = isid;
  std::uint8_t& qualifier = result[kQualifierByte];
  qualifier ^= (qualifier & kNoGuest) != 0 ? kNoTool : kNoGuest;
  return result;
}

void NexusSpaces::logged_in(const Session& session) {
  const auto known = std::find_if(logins_.begin(), logins_.end(),
                                  [&](const Login& login) { return login.session == &session; });
  if (known != logins_.end()) {
    logins_.erase(known);
  }
  logins_.push_back({&session, ++last_});
  std::erase_if(refuted_, [this](const Numbers& pair) {
    const auto in_use = [this](Number number) {
      return std::any_of(logins_.begin(), logins_.end(),
                         [&](const Login& login) { return login.number == number; });
    };
    return !in_use(pair.first) || !in_use(pair.second);
  });
}

void NexusSpaces::forget(const Session& session) {
  std::erase_if(logins_, [&](const Login& login) { return login.session == &session; });
  std::erase_if(past_, [&](const Past& past) {
    return past.sessions.first == &session || past.sessions.second == &session;
  });
}

NexusSpaces::Number NexusSpaces::number(const Session& session) const {
  const auto known = std::find_if(logins_.begin(), logins_.end(),
                                  [&](const Login& login) { return login.session == &session; });
  return known == logins_.end() ? 0 : known->number;
}

bool NexusSpaces::same(const Session& one, const Session& other) const {
  const Number found = number(one);
  return found != 0 && found == number(other);
}

const NexusSpaces::Past* NexusSpaces::past(const Session& one, const Session& other) const {
  const auto found = std::find_if(past_.begin(), past_.end(), [&](const Past& past) {
    return past.sessions == Pair{&one, &other} || past.sessions == Pair{&other, &one};
  });
  return found == past_.end() ? nullptr : &*found;
}

bool NexusSpaces::tried_in_vain(const Session& one, const Session& other) const {
  const Past* found = past(one, other);
  return found != nullptr && !found->proven && !same(one, other);
}

TimePoint NexusSpaces::trial_due(const Session& one, const Session& other) const {
  const Numbers numbers{number(one), number(other)};
  const bool refuted = std::any_of(refuted_.begin(), refuted_.end(), [&](const Numbers& pair) {
    return pair == numbers || pair == Numbers{numbers.second, numbers.first};
  });
  if (refuted || numbers.first == 0 || numbers.second == 0 || numbers.first == numbers.second) {
    return TimePoint::max();
  }
  const Past* found = past(one, other);
  return found == nullptr ? TimePoint{} : found->again_at;
}

void NexusSpaces::tried(const Pair& sessions, const Numbers& numbers, TrialVerdict verdict,
                        TimePoint now) {
  const bool proven = verdict == TrialVerdict::proven;
  if (proven) {
    // Equality is transitive, and so is what is known to be different from one of them.
    for (Login& login : logins_) {
      login.number = login.number == numbers.second ? numbers.first : login.number;
    }
    for (Numbers& pair : refuted_) {
      pair.first = pair.first == numbers.second ? numbers.first : pair.first;
      pair.second = pair.second == numbers.second ? numbers.first : pair.second;
    }
  } else if (verdict == TrialVerdict::refuted) {
    refuted_.push_back(numbers);
  }
  std::erase_if(past_, [&](const Past& past) {
    return past.sessions == sessions || past.sessions == Pair{sessions.second, sessions.first};
  });
  past_.push_back({.sessions = sessions,
                   .again_at = now + (proven ? Duration(kAfterProof) : Duration(kAfterFailure)),
                   .proven = proven});
}

// One of the two sessions of the trial.
class PortalGroupTrial::Visitor final : public SessionObserver {
 public:
  // It has the first session's name and credentials, and takes the way of the other one.
  Visitor(PortalGroupTrial& trial, const Session& like, const Session& way)
      : trial_(trial), session_(trial.reactor_, options(like.options(), way)) {
    session_.add_observer(*this);
    session_.start();
  }

  [[nodiscard]] const Session& session() const { return session_; }
  [[nodiscard]] bool stopped() const { return stopped_; }
  void stop() {
    if (std::exchange(stopping_, true)) {
      return;
    }
    session_.remove_observer(*this);
    session_.stop(
        [](void* self) noexcept {
          auto& visitor = *static_cast<Visitor*>(self);
          visitor.stopped_ = true;
          visitor.trial_.look_whether_over_.schedule();
        },
        this);
  }

 private:
  static SessionOptions options(const SessionOptions& like, const Session& way) {
    SessionOptions result = like;
    result.isid = trial_isid(like.isid);
    result.portal = way.portal_address();
    result.other_addresses.clear();
    result.portal_name = way.options().portal_name;
    result.interface_binding = way.options().interface_binding;
    result.max_commands = 1;
    result.logout_timeout = std::min(result.logout_timeout, kLogoutTime);
    return result;
  }
  void on_session_up(Session& /*session*/) noexcept override { trial_.on_visitor_up(*this); }
  void on_session_down(Session& /*session*/, const Error& why) noexcept override {
    trial_.on_visitor_down(*this, why);
  }

  PortalGroupTrial& trial_;
  Session session_;
  bool stopping_ = false;
  bool stopped_ = false;
};

PortalGroupTrial::PortalGroupTrial(Reactor& reactor, Session& first, Session& second, Owner& owner)
    : reactor_(reactor),
      owner_(owner),
      own_{&first, &second},
      sessions_(&first, &second),
      portal_group_(login_nexus(first).portal_group.value()),
      witnesses_{Witness(*this, 0), Witness(*this, 1)},
      timer_(
          reactor,
          [](void* self) noexcept {
            auto& trial = *static_cast<PortalGroupTrial*>(self);
            trial.facts_.time_over = true;
            trial.advance();
          },
          this),
      advance_(
          reactor, [](void* self) noexcept { static_cast<PortalGroupTrial*>(self)->advance(); },
          this),
      look_whether_over_(
          reactor,
          [](void* self) noexcept { static_cast<PortalGroupTrial*>(self)->look_whether_over(); },
          this) {
  for (std::size_t which = 0; which < own_.size(); ++which) {
    own_[which]->add_observer(witnesses_[which]);
  }
  visitors_[0] = std::make_unique<Visitor>(*this, first, first);
  timer_.start_after(kAnswerTime);
}

PortalGroupTrial::~PortalGroupTrial() {
  ISCSI_BLKBACK_ASSERT(ending_);
}

void PortalGroupTrial::cancel() {
  end(TrialVerdict::inconclusive);
}

void PortalGroupTrial::disturb() {
  facts_.disturbed = true;
  advance_.schedule();
}

void PortalGroupTrial::on_answer(Session& session, std::size_t which) {
  if (!facts_.asked) {
    return;
  }
  if (answers_left_[which] > 0 && --answers_left_[which] > 0) {
    session.ping();
  }
  facts_.answered = answers_left_[0] == 0 && answers_left_[1] == 0;
  advance_.schedule();
}

void PortalGroupTrial::on_visitor_up(const Visitor& visitor) {
  const bool first = &visitor == visitors_[0].get();
  (first ? facts_.first_up : facts_.second_up) = true;
  facts_.disturbed = facts_.disturbed || was_redirected(visitor.session()) ||
                     login_nexus(visitor.session()).portal_group != portal_group_;
  if (!first) {
    timer_.start_after(kEndTime);
  }
  advance_.schedule();
}

void PortalGroupTrial::on_visitor_down(const Visitor& visitor, const Error& why) {
  if (&visitor == visitors_[0].get() && why.code != ErrorCode::timed_out) {
    facts_.first_ended = true;
  } else {
    facts_.disturbed = true;
  }
  advance_.schedule();
}

void PortalGroupTrial::advance() {
  if (ending_) {
    return;
  }
  if (facts_.first_ended) {
    visitors_[0]->stop();  // its next login would end the second one
  }
  switch (next_step(facts_)) {
    case TrialStep::wait:
      return;
    case TrialStep::start_second:
      facts_.second_started = true;
      visitors_[1] = std::make_unique<Visitor>(*this, *own_[0], *own_[1]);
      timer_.start_after(kAnswerTime);
      return;
    case TrialStep::ask:
      facts_.asked = true;
      answers_left_ = {kQuestions, kQuestions};
      timer_.start_after(kAnswerTime);
      for (Session* session : own_) {
        session->ping();
      }
      return;
    case TrialStep::end_proven:
      end(TrialVerdict::proven);
      return;
    case TrialStep::end_refuted:
      end(TrialVerdict::refuted);
      return;
    case TrialStep::give_up:
      end(TrialVerdict::inconclusive);
      return;
  }
}

void PortalGroupTrial::end(TrialVerdict verdict) {
  if (std::exchange(ending_, true)) {
    return;
  }
  verdict_ = verdict;
  timer_.stop();
  advance_.cancel();
  for (std::size_t which = 0; which < own_.size(); ++which) {
    own_[which]->remove_observer(witnesses_[which]);
  }
  for (const std::unique_ptr<Visitor>& visitor : visitors_) {
    if (visitor != nullptr) {
      visitor->stop();
    }
  }
}

void PortalGroupTrial::look_whether_over() {
  const bool over = std::all_of(visitors_.begin(), visitors_.end(), [](const auto& visitor) {
    return visitor == nullptr || visitor->stopped();
  });
  if (ending_ && over) {
    owner_.on_trial_over(verdict_);  // may delete this
  }
}

}  // namespace iscsi_blkback
