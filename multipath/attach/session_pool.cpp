#include "multipath/attach/session_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

bool same_addresses(const SessionOptions& one, const SessionOptions& other) {
  const auto all_of = [](const SessionOptions& options) {
    std::vector<SocketAddress> all = options.other_addresses;
    all.push_back(options.portal);
    return all;
  };
  const auto first = all_of(one);
  const auto second = all_of(other);
  return std::is_permutation(first.begin(), first.end(), second.begin(), second.end());
}

// Whether a disk that asks for these may use a session that was made for those.
bool same_session(const SessionOptions& made_for, SessionOptions asked) {
  asked.isid = made_for.isid;
  asked.portal_name = made_for.portal_name;
  asked.discovery_chap = made_for.discovery_chap;
  // Name servers tell the addresses of a name in turns.
  if (same_addresses(made_for, asked)) {
    asked.portal = made_for.portal;
    asked.other_addresses = made_for.other_addresses;
  }
  return asked == made_for;
}

}  // namespace

struct SessionPool::Entry {
  Entry(SessionPool& owner, SessionOptions options)
      : pool(owner), asked(std::move(options)), session(owner.reactor_, asked) {}

  SessionPool& pool;
  const SessionOptions asked;  // the session's own are within its bounds
  Session session;
  std::uint32_t users = 0;
  std::uint32_t impatient_users = 0;  // those that gave up
  bool waits = false;                 // not started yet
  bool stopping = false;
  bool stopped = false;
};

SessionPool::SessionPool(Reactor& reactor, DomainId own_domain, DomainId guest, std::string host_id,
                         BarrierJobs* barrier_jobs, ReactorPlace place)
    : SessionPool(
          reactor,
          [own_domain, guest, host_id = std::move(host_id), place](
              const SessionOptions& options, std::uint32_t variant, std::uint32_t attempt) {
            return make_isid(own_domain, guest, options, variant, attempt, host_id, place);
          },
          barrier_jobs) {}

SessionPool::SessionPool(Reactor& reactor, IsidRule isid_rule, BarrierJobs* barrier_jobs)
    : reactor_(reactor),
      isid_rule_(std::move(isid_rule)),
      fencing_(reactor, barrier_jobs),
      collect_(
          reactor, [](void* self) noexcept { static_cast<SessionPool*>(self)->collect(); }, this) {}

SessionPool::~SessionPool() {
  ISCSI_BLKBACK_ASSERT(entries_.empty());
}

Result<Session*> SessionPool::acquire(SessionOptions options, std::uint32_t variant) {
  for (auto& entry : entries_) {
    if (!entry->stopping && same_session(entry->asked, options)) {
      ++entry->users;
      return &entry->session;
    }
  }
  if (!fencing_.budget.take(1)) {
    return fail(ErrorCode::exhausted,
                fmt::format("the guest has {} sessions already, no more are made",
                            fencing_.budget.taken()));
  }
  std::uint32_t attempt = 0;
  do {
    options.isid = isid_rule_(options, variant, attempt++);
  } while (used_by_live_session(options.isid));
  entries_.push_back(std::make_unique<Entry>(*this, std::move(options)));
  Entry& entry = *entries_.back();
  entry.users = 1;
  start_or_wait(entry);
  return &entry.session;
}

void SessionPool::start_or_wait(Entry& entry) {
  entry.waits = std::any_of(entries_.begin(), entries_.end(), [&](const auto& other) {
    return other.get() != &entry && other->asked.isid == entry.asked.isid;
  });
  if (!entry.waits) {
    entry.session.start();
  }
}

void SessionPool::release(Session& session) {
  Entry& entry = entry_of(session);
  ISCSI_BLKBACK_ASSERT(entry.users > 0);
  --entry.users;
  entry.impatient_users = std::min(entry.impatient_users, entry.users);
  if (entry.users != 0) {
    return;
  }
  entry.stopping = true;
  entry.session.stop(
      [](void* owner) noexcept {
        auto& stopped = *static_cast<Entry*>(owner);
        stopped.stopped = true;
        stopped.pool.collect_.schedule();
      },
      &entry);
}

void SessionPool::abort_outstanding(Session& session) {
  Entry& entry = entry_of(session);
  entry.impatient_users = std::min(entry.impatient_users + 1, entry.users);
  if (entry.impatient_users == entry.users && session.state() == SessionState::logged_in &&
      session.commands_in_flight() != 0) {
    session.drop(Error{ErrorCode::timed_out, "the disk is closed and the target does not answer"});
  }
}

bool SessionPool::stopping() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const auto& entry) { return entry->stopping; });
}

void SessionPool::on_change(void (*callback)(void* owner) noexcept, void* owner) {
  callback_ = callback;
  callback_owner_ = owner;
}

SessionPool::Entry& SessionPool::entry_of(const Session& session) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const auto& entry) { return &entry->session == &session; });
  ISCSI_BLKBACK_ASSERT(found != entries_.end());
  return **found;
}

bool SessionPool::used_by_live_session(const Isid& isid) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return !entry->stopping && entry->asked.isid == isid;
  });
}

void SessionPool::collect() {
  fencing_.budget.give_back(
      std::erase_if(entries_, [](const auto& entry) { return entry->stopped; }));
  for (const auto& entry : entries_) {
    if (entry->waits && !entry->stopping) {
      start_or_wait(*entry);
    }
  }
  if (callback_ != nullptr) {
    callback_(callback_owner_);
  }
}

}  // namespace iscsi_blkback
