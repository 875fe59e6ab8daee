#include "blkback/session_pool.h"

#include <fmt/format.h>

#include <algorithm>

namespace iscsi_blkback {
namespace {

// FNV-1a: spreads well enough for 24 bits, and never changes between versions or compilers.
std::uint32_t fnv1a(std::uint32_t hash, std::string_view text) {
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  return (hash ^ 0xffu) * 16777619u;  // an end mark, so that "ab","c" differs from "a","bc"
}

}  // namespace

Isid make_isid(DomainId own_domain, DomainId guest, const std::string& target_name,
               const SocketAddress& portal, const InterfaceBinding& interface,
               std::uint16_t session_number, std::uint32_t attempt) {
  std::uint32_t hash = 2166136261u;
  hash = fnv1a(hash, std::to_string(own_domain));
  hash = fnv1a(hash, target_name);
  hash = fnv1a(hash, portal.to_string());
  hash = fnv1a(hash, interface.to_string());
  if (session_number != 0) {
    hash = fnv1a(hash, std::to_string(session_number));
  }
  hash = (hash >> 24 ^ hash) + attempt;
  const auto byte = [](std::uint32_t value) { return static_cast<std::uint8_t>(value & 0xff); };
  return Isid{
      0x80,       byte(hash >> 16), byte(hash >> 8), byte(hash), byte(std::uint32_t{guest} >> 8),
      byte(guest)};
}

struct SessionPool::Entry {
  Entry(SessionPool& owner, SessionOptions options)
      : pool(owner), session(owner.reactor_, std::move(options)) {}

  SessionPool& pool;
  Session session;
  std::uint32_t users = 0;
  std::uint32_t impatient_users = 0;  // those that gave up
  bool stopping = false;
  bool stopped = false;
};

SessionPool::SessionPool(Reactor& reactor, DomainId own_domain, DomainId guest)
    : reactor_(reactor),
      own_domain_(own_domain),
      guest_(guest),
      collect_(
          reactor, [](void* self) noexcept { static_cast<SessionPool*>(self)->collect(); }, this) {}

SessionPool::~SessionPool() {
  ISCSI_BLKBACK_ASSERT(entries_.empty());
}

Result<Session*> SessionPool::acquire(SessionOptions options) {
  for (auto& entry : entries_) {
    const SessionOptions& existing = entry->session.options();
    if (!entry->stopping && existing.target_name == options.target_name &&
        existing.portal == options.portal &&
        existing.interface_binding == options.interface_binding &&
        existing.session_number == options.session_number) {
      ++entry->users;
      return &entry->session;
    }
  }
  if (entries_.size() >= kMaxSessions) {
    return fail(ErrorCode::exhausted,
                fmt::format("the guest has {} sessions already, no more are made", kMaxSessions));
  }
  std::uint32_t attempt = 0;
  do {
    options.isid = make_isid(own_domain_, guest_, options.target_name, options.portal,
                             options.interface_binding, options.session_number, attempt++);
  } while (isid_taken(options.isid));
  entries_.push_back(std::make_unique<Entry>(*this, std::move(options)));
  Entry& entry = *entries_.back();
  entry.users = 1;
  entry.session.start();
  return &entry.session;
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

void SessionPool::give_up(Session& session) {
  Entry& entry = entry_of(session);
  entry.impatient_users = std::min(entry.impatient_users + 1, entry.users);
  if (entry.impatient_users == entry.users && session.state() == SessionState::logged_in &&
      session.commands_in_flight() != 0) {
    session.drop(Error{ErrorCode::timed_out, "the guest has gone and the target does not answer"});
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

bool SessionPool::isid_taken(const Isid& isid) const {
  // A session that is being stopped counts: a login with its ISID would end its logout.
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const auto& entry) { return entry->session.options().isid == isid; });
}

void SessionPool::collect() {
  std::erase_if(entries_, [](const auto& entry) { return entry->stopped; });
  if (callback_ != nullptr) {
    callback_(callback_owner_);
  }
}

}  // namespace iscsi_blkback
