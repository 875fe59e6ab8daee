// Other disks of this host at the LUN of a MultipathDevice (lun_write_barrier.h): what they may
// have left behind there, what they are told of this one, and who comes first.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// While another disk is waited for it is looked at so often at first, and then less and less often:
// an eighth of the time that has been waited so far.
constexpr Duration kShortestLook = std::chrono::milliseconds(20);
constexpr Duration kLongestLook = std::chrono::milliseconds(250);
// How often the log says that this goes on.
constexpr std::chrono::seconds kReminder{60};
// Guests that start together come to the barrier's folder together: each waits for its turn, which
// is nobody's trouble for so long.
constexpr std::chrono::seconds kTurnTime{5};

std::int64_t milliseconds_of(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace

// When the disk knows which LUN it is, before it is ready. One that never writes leaves nothing
// behind and overtakes nothing. One that cannot enter is not served: it would write where others
// count on nobody writing, and tries again.
void MultipathDevice::Impl::enter_barrier() {
  if (geometry().read_only) {
    return;
  }
  if (!options_.barrier_directory.empty()) {
    auto barrier = LunWriteBarrier::enter(
        options_.barrier_directory,
        lun_barrier_key(barrier_name_of(names()), disk_.target_name(), disk_.lun_number()),
        {.name = options_.holder_name.empty() ? options_.alias : options_.holder_name,
         .vm = guest_.vm,
         .domain = options_.holder_domain,
         .shared = options_.shared,
         .quiesce_time = options_.quiesce_time},
        reactor_.now(), names_at_barrier_);
    barrier_error_ = barrier ? "" : barrier.error().message;
    note_turn(barrier ? nullptr : &barrier.error());
    if (barrier) {
      barrier_ = std::move(*barrier);
      tell_use();
      for (Path* path : paths_.all()) {
        if (path->session().login_epoch() != 0) {
          tell_nexus(*path);
        }
      }
    }
  }
  look_at_barrier();
}

// What a path has told is the LUN's, as it was compared with what was known. From then on the disk
// knows its LUN by it as well: a path may tell these names only, as may those of other disks.
void MultipathDevice::Impl::learn_names(const std::string& target_name, const LunNames& told,
                                        SerialNumberIs serial) {
  names_at_barrier_.serial = serial;
  (void)names_at_barrier_.add(told, target_name);
  if (barrier_.learn(told, target_name)) {
    follow_barrier_file();
    if (turn_since_) {
      barrier_timer_.start_after(barrier_look());
    }
  }
}

void MultipathDevice::Impl::note_turn(const Error* error) {
  if (error == nullptr || error->code != ErrorCode::unavailable) {
    turn_since_.reset();
  } else {
    turn_since_ = turn_since_.value_or(reactor_.now());
  }
}

bool MultipathDevice::Impl::waits_for_its_turn() const {
  return turn_since_ && reactor_.now() < *turn_since_ + kTurnTime;
}

Duration MultipathDevice::Impl::barrier_look() const {
  return waits_for_its_turn() ? Duration{kShortestLook} : Duration{kBarrierLook};
}

void MultipathDevice::Impl::follow_barrier_file() {
  const auto followed = barrier_.follow_file();
  note_turn(followed ? nullptr : &followed.error());
  if (!followed) {
    if (!waits_for_its_turn()) {
      log_.warning("other disks of this host do not see it: {}", followed.error().message);
    }
  } else if (*followed) {
    log_message(LogLevel::error, "multipath",
                fmt::format("{}: its LUN has a name by which other disks of this host knew it, "
                            "which had not seen this one: if both were in use, their writes may "
                            "have overtaken each other until now",
                            options_.alias));
  }
}

// A guest that is in doubt runs, for others: as soon as its disk went to another one, it would have
// to wait for that one's end, and what it had asked for before would come too late.
void MultipathDevice::Impl::tell_use() {
  HolderUse use = HolderUse::runs;
  if (guest_.state == GuestState::suspended || guest_.state == GuestState::moved ||
      (closing_ && keeps_the_place())) {
    use = HolderUse::suspended;  // the process may end before the disk is closed
  } else if (guest_.state == GuestState::ended || closing_) {
    use = HolderUse::ended;
  }
  barrier_.set_use(use, guest_.vm, reactor_.now());
}

// When it closes: its guest has another disk soon, here or where it is restored. The toolstack
// takes the disks of a guest that it saves away before the guest has ended.
bool MultipathDevice::Impl::keeps_the_place() const {
  return guest_.state == GuestState::runs ? keeps_place_ : guest_.state != GuestState::ended;
}

void MultipathDevice::Impl::on_barrier_timer() {
  if (!barrier_error_.empty() && !closing_) {
    enter_barrier();
    return;
  }
  follow_barrier_file();
  if (closing_ || (suspended() && waits_because_.empty())) {
    barrier_timer_.start_after(barrier_look());
  } else {
    look_at_barrier();
  }
}

void MultipathDevice::Impl::tell_nexus(const Path& path) {
  const SessionOptions& session = path.session().options();
  const auto told =
      barrier_.set_nexus(path.index(), {.isid = session.isid,
                                        .session_number = session.session_number,
                                        .initiator_name = session.initiator_name,
                                        .target_name = session.target_name,
                                        .portal = path.session().portal_address(),
                                        .interface_binding = session.interface_binding,
                                        .place = login_place(path.session())});
  if (!told) {
    log_.warning("should its process die, the next disk has to wait for quiesce_time: {}",
                 told.error().message);
  }
}

// What was lost where a path does not lead any more, no login that is told of here can fence.
void MultipathDevice::Impl::tell_unfenced() {
  told_unfenced_ = unfenced_.whereabouts(
      [this](std::uint32_t path) { return login_place(paths_[path].session()); });
  barrier_.set_unfenced(told_unfenced_.paths, told_unfenced_.elsewhere, unfenced_until_);
}

void MultipathDevice::Impl::look_at_barrier() {
  if (closing_) {
    return;
  }
  const LunWriteBarrier::Others others = barrier_.look(reactor_.now());
  fence_dead_holders(others.dead);
  if (others.overtaken && !std::exchange(overtaken_, true)) {
    fail_what_waits();
  }
  const std::string before = std::exchange(waits_because_, why_it_waits(others));
  if (before != waits_because_) {
    notify_.schedule();
  }
  if (!waits_because_.empty()) {
    if (before.empty() || (overtaken_ && before != waits_because_)) {
      barrier_since_ = barrier_reminder_ = reactor_.now();
    }
    wait_for_barrier();
    return;
  }
  if (!before.empty()) {
    log_info("multipath", "{}: the LUN is its own after {} ms", options_.alias,
             milliseconds_of(reactor_.now() - barrier_since_));
    release_held_.schedule();
  }
  if (barrier_.entered()) {
    barrier_timer_.start_after(barrier_look());
  } else {
    barrier_timer_.stop();
  }
}

// Empty: it does not. The hotplug script knows by "the LUN is not served until" what ends by
// itself.
std::string MultipathDevice::Impl::why_it_waits(const LunWriteBarrier::Others& others) const {
  if (overtaken_) {
    return "the LUN is not served any more: another disk of this host has written there while the "
           "guest was suspended, and the guest knows nothing of it; destroy the guest";
  }
  if (!barrier_error_.empty()) {
    return fmt::format(
        "the LUN is not served, because its writes cannot be kept in order with those of other "
        "disks of this host: {}",
        barrier_error_);
  }
  if (!others.in_use_by.empty()) {
    return fmt::format(
        "the LUN is in use by {}: it is served when that is over, or at once if both disks are "
        "shared",
        others.in_use_by);
  }
  if (!others.late_writes_of.empty()) {
    return fmt::format("the LUN is not served until no write of {} can land there any more",
                       others.late_writes_of);
  }
  const double quiesce_s = std::chrono::duration<double>(options_.quiesce_time).count();
  if (!others.dead.empty()) {
    return fmt::format(
        "the LUN is not served until what a process of this host that has died had sent there is "
        "fenced, or for quiesce_time ({} s) after its death",
        quiesce_s);
  }
  if (options_.host_started_at &&
      reactor_.now() < *options_.host_started_at + options_.quiesce_time) {
    return fmt::format(
        "the LUN is not served until this host has run for quiesce_time ({} s): it had not ended "
        "in order, and what it had sent before may still be executed",
        quiesce_s);
  }
  return {};
}

void MultipathDevice::Impl::wait_for_barrier() {
  const TimePoint now = reactor_.now();
  if (now >= barrier_reminder_ && !waits_for_its_turn()) {
    LogLevel level = now == barrier_since_ ? LogLevel::info : LogLevel::warning;
    level = overtaken_ ? LogLevel::error : level;
    log_message(level, "multipath", fmt::format("{}: {}", options_.alias, waits_because_));
    barrier_reminder_ = now + kReminder;
    notify_.schedule();
  }
  barrier_timer_.start_after(
      barrier_error_.empty() || waits_for_its_turn()
          ? std::clamp<Duration>((now - barrier_since_) / 8, kShortestLook, kLongestLook)
          : kBarrierLook);
}

void MultipathDevice::Impl::fence_dead_holders(
    const std::vector<LunWriteBarrier::DeadHolder>& dead) {
  std::vector<PredecessorPath> wanted;
  for (const LunWriteBarrier::DeadHolder& holder : dead) {
    for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
      if ((holder.paths & path_bit(path)) == 0) {
        continue;
      }
      const PredecessorPath predecessor{holder.slot, holder.turn, path};
      const auto nexus = barrier_.nexus_of(predecessor);
      const SessionOptions* like = nexus ? session_at(nexus->target_name) : nullptr;
      if (like != nullptr) {
        wanted.push_back(predecessor);
        predecessor_fence_.fence(predecessor, *nexus, *like);
      }
    }
  }
  predecessor_fence_.keep_only(wanted);
}

// The options of a session with that target; null: no path leads there.
const SessionOptions* MultipathDevice::Impl::session_at(const std::string& target_name) const {
  const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
    return path->session().options().target_name == target_name;
  });
  return found == paths_.end() ? nullptr : &(*found)->session().options();
}

void MultipathDevice::Impl::on_predecessor_fenced(const PredecessorPath& predecessor) noexcept {
  barrier_.reinstated(predecessor);
  look_at_barrier();
}

void MultipathDevice::Impl::on_predecessor_fence_idle() noexcept {
  look_at_those_that_end();
}

std::vector<Session*> MultipathDevice::Impl::path_sessions() const {
  std::vector<Session*> sessions;
  for (const Path* path : paths_) {
    sessions.push_back(&path->session());
  }
  return sessions;
}

}  // namespace iscsi_blkback
