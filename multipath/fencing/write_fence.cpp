#include "multipath/fencing/write_fence.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

WriteFence::WriteFence(Reactor& reactor, const Options& options, SharedFencing& fencing,
                       PathSet& paths, const GroupController& groups,
                       const PathActivator& activator, LunTurn& turn, DiskSteps& steps,
                       DiskLog& log, Owner& owner)
    : reactor_(reactor),
      options_(options),
      sessions_(fencing.sessions),
      registrations_(fencing.registrations),
      paths_(paths),
      groups_(groups),
      turn_(turn),
      steps_(steps),
      owner_(owner),
      unfenced_(options.most_writes, options.redirected_login_fences),
      timer_(
          reactor, [](void* self) noexcept { static_cast<WriteFence*>(self)->on_timer(); }, this),
      lun_command_(options.lun_fence.preempts, paths, unfenced_, sessions_, activator, *this),
      lun_fence_(reactor, options.lun_fence, unfenced_, lun_command_, steps, log, *this) {
  registrations_.add(*this);
}

PortalGroupFences WriteFence::portal_group_fences() const noexcept {
  return options_.redirected_login_fences ? PortalGroupFences::yes
                                          : groups_.policies().portal_group_fences;
}

bool WriteFence::fenced_alone(const Path& path) const {
  if (portal_group_fences() != PortalGroupFences::trial) {
    return false;
  }
  const auto any_other = [&](const auto& is) {
    return std::any_of(paths_.begin(), paths_.end(), [&](const Path* other) {
      return &other->session() != &path.session() && is(other->session());
    });
  };
  return any_other([&](const Session& other) {
           return sessions_.tried_in_vain(path.session(), other);
         }) &&
         !any_other([&](const Session& other) {
           return sessions_.one_nexus_space(path.session(), other);
         });
}

void WriteFence::lost(const Path& path, std::uint64_t first_sector, std::uint64_t end_sector,
                      std::uint64_t owner) {
  Session& session = path.session();
  unfenced_until_ = reactor_.now() + options_.lun_fence.quiesce_time;
  const bool added = unfenced_.add({.first_sector = first_sector,
                                    .end_sector = end_sector,
                                    .owner = owner,
                                    .path = path.index(),
                                    .nexus = login_nexus(session),
                                    .login_epoch = session.login_epoch(),
                                    .harmless_at = unfenced_until_});
  told_.paths |= path_bit(path.index());
  told_.elsewhere = told_.elsewhere || !added;
  turn_.tell_unfenced(told_, unfenced_until_);
  if (!timer_.armed()) {
    start_timer();
  }
  if (!withdrawn_) {
    sessions_.fence(session, *this);
  }
}

bool WriteFence::may_reset() const noexcept {
  return options_.exclusive && !suspended_ &&
         std::none_of(paths_.begin(), paths_.end(), [this](const Path* path) {
           return sessions_.other_refuses_reset(
               owner_.lun().wwid, path->session().options().target_name, path->lun(), *this);
         });
}

// The target has terminated what the session lost in its earlier logins, where this login has led
// to the same nexus (login_nexus.h). Tasks of a connection complete before the next login, so that
// all of it is recorded by now.
void WriteFence::on_session_up(Path& path) {
  const Session& session = path.session();
  tell_others();  // before this login takes the place of the one that lost them
  turn_.tell_nexus(path);
  if (unfenced_.fence(path.index(), login_nexus(session), session.login_epoch() - 1)) {
    after_fencing();
  }
}

void WriteFence::on_fenced(Session& session, const LoginNexus& nexus,
                           std::uint64_t login_epoch) noexcept {
  bool removed = false;
  for (const Path* path : paths_.all()) {
    if (&path->session() == &session) {
      removed = unfenced_.fence(path->index(), nexus, login_epoch) || removed;
    }
  }
  if (removed) {
    after_fencing();
  }
}

void WriteFence::on_timer() {
  if (unfenced_.expire(reactor_.now())) {
    after_fencing();
  } else {
    start_timer();
  }
}

void WriteFence::start_timer() {
  if (unfenced_.empty()) {
    timer_.stop();
  } else {
    timer_.start_at(unfenced_.next_expiry());
    lun_fence_.start();
  }
}

void WriteFence::after_fencing() {
  tell_others();
  start_timer();
  steps_.due(DiskStep::release_held);
  steps_.due_to_end();
}

// What was lost where a path does not lead any more, no login that is told of here can fence.
void WriteFence::tell_others() {
  told_ = unfenced_.whereabouts(
      [this](std::uint32_t path) { return login_nexus(paths_[path].session()); });
  turn_.tell_unfenced(told_, unfenced_until_);
}

// Another disk of the same LUN over the same session has the same registration: the last one takes
// it back.
bool WriteFence::key_unregistered(Path& path) {
  PrRegistration& key = path.key();
  if (!key.ends()) {
    if (registrations_.other_needs_key(path.session(), path.lun(), *this)) {
      key.disown();
    } else {
      key.unregister();
    }
  }
  return !key.unregistering();
}

bool WriteFence::needs_key(const Session& session, std::uint16_t lun) const noexcept {
  const Path* path = options_.lun_fence.preempts ? paths_.find(session, lun) : nullptr;
  return path != nullptr && !path->key().ends();
}

// Perhaps after we have registered anew, and then that is what it has taken.
void WriteFence::on_key_taken_back(const Session& session, std::uint16_t lun) noexcept {
  Path* const path = paths_.find(session, lun);
  if (path != nullptr && !paths_.is_leaving(*path) && !closing_) {
    path->key().invalidate();
    register_key(*path);
  }
}

bool WriteFence::refuses_reset(const std::string& wwid, const std::string& target_name,
                               std::uint16_t lun) const noexcept {
  if (options_.exclusive && !suspended_) {
    return false;
  }
  // The other disk may have been told it when the LUN had fewer names, or more.
  return (!wwid.empty() && (wwid == owner_.lun().wwid || is_called(owner_.lun().names, wwid))) ||
         std::any_of(paths_.all().begin(), paths_.all().end(), [&](const Path* path) {
           return path->lun() == lun && path->session().options().target_name == target_name;
         });
}

void WriteFence::suspend() {
  suspended_ = true;
  sessions_.stop_trials(*this);
  lun_fence_.suspend();
}

void WriteFence::resume() {
  suspended_ = false;
}

void WriteFence::close() {
  closing_ = true;
  sessions_.stop_trials(*this);
}

bool WriteFence::withdraw() {
  withdrawn_ = true;
  unfenced_.clear();
  timer_.stop();
  lun_fence_.stop();
  return sessions_.withdraw(*this);
}

}  // namespace iscsi_blkback
