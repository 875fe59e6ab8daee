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

std::int64_t milliseconds_of(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace

// When the disk knows which LUN it is, before it writes there. One that never writes leaves nothing
// behind and overtakes nothing.
void MultipathDevice::Impl::enter_barrier(const std::string& target_name, std::uint16_t lun) {
  if (options_.barrier_directory.empty() || geometry_.read_only) {
    return;
  }
  auto barrier = LunWriteBarrier::enter(
      options_.barrier_directory, lun_barrier_key(identity_, target_name, lun),
      {.name = options_.holder_name.empty() ? options_.alias : options_.holder_name,
       .shared = options_.shared,
       .quiesce_time = options_.quiesce_time});
  if (!barrier) {
    log_warning("multipath",
                "{}: nothing keeps its writes in order with those of other disks of this host at "
                "the same LUN: {}",
                options_.alias, barrier.error().message);
    return;
  }
  barrier_ = std::move(*barrier);
  barrier_.set_ended(suspended_ || closing_);
  for (const std::unique_ptr<Path>& path : slots_) {
    if (path != nullptr && path->session().login_epoch() != 0) {
      tell_nexus(*path);
    }
  }
  look_at_barrier();
}

void MultipathDevice::Impl::tell_nexus(const Path& path) {
  const SessionOptions& session = path.session().options();
  barrier_.set_nexus(path.index(), {.isid = session.isid,
                                    .session_number = session.session_number,
                                    .initiator_name = session.initiator_name,
                                    .target_name = session.target_name,
                                    .portal = session.portal,
                                    .interface_binding = session.interface_binding,
                                    .place = login_place(path.session())});
}

// What was lost where a path does not lead any more, no login that is told of here can fence.
void MultipathDevice::Impl::tell_unfenced() {
  told_unfenced_ = unfenced_.whereabouts(
      [this](std::uint32_t path) { return login_place(slots_[path]->session()); });
  barrier_.set_unfenced(told_unfenced_.paths, told_unfenced_.elsewhere, unfenced_until_);
}

void MultipathDevice::Impl::look_at_barrier() {
  if (closing_) {
    return;
  }
  const LunWriteBarrier::Others others = barrier_.look(reactor_.now());
  fence_dead_holders(others.dead);
  if (std::exchange(in_use_by_, others.in_use_by) != others.in_use_by) {
    notify_.schedule();
  }
  if (!others.may_write()) {
    wait_for_barrier(others);
  } else if (std::exchange(barrier_waits_, false)) {
    barrier_timer_.stop();
    log_info("multipath",
             "{}: writes go on after {} ms: nothing of other disks can land any more at the LUN",
             options_.alias, milliseconds_of(reactor_.now() - barrier_since_));
    release_held_.schedule();
  }
}

void MultipathDevice::Impl::wait_for_barrier(const LunWriteBarrier::Others& others) {
  const TimePoint now = reactor_.now();
  if (!std::exchange(barrier_waits_, true)) {
    barrier_since_ = now;
    barrier_reminder_ = now;
  }
  if (now >= barrier_reminder_) {
    barrier_reminder_ = now + kReminder;
    if (!others.in_use_by.empty()) {
      log_warning("multipath",
                  "{}: waits for the LUN, which is in use by {}: detach it there, or set `shared` "
                  "for both",
                  options_.alias, others.in_use_by);
    } else if (!others.late_writes_of.empty()) {
      log_info("multipath", "{}: writes wait: some of {} may still land at the same LUN",
               options_.alias, others.late_writes_of);
    } else {
      log_info("multipath",
               "{}: writes wait: a process of this host has died with writes outstanding at the "
               "same LUN",
               options_.alias);
    }
  }
  barrier_timer_.start_after(
      std::clamp<Duration>((now - barrier_since_) / 8, kShortestLook, kLongestLook));
}

void MultipathDevice::Impl::fence_dead_holders(
    const std::vector<LunWriteBarrier::DeadHolder>& dead) {
  std::vector<PredecessorPath> wanted;
  for (const LunWriteBarrier::DeadHolder& holder : dead) {
    for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
      const auto nexus = (holder.paths & path_bit(path)) != 0 ? barrier_.nexus_of(holder.slot, path)
                                                              : std::nullopt;
      const SessionOptions* like = nexus ? session_at(nexus->target_name) : nullptr;
      if (like != nullptr) {
        wanted.push_back({holder.slot, holder.turn, path});
        predecessor_fence_.fence(wanted.back(), *nexus, *like);
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
