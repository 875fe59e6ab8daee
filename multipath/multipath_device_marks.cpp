// What another disk of this host may have left behind at the same LUN (unfenced_mark.h). A disk is
// marked while writes of its own are unfenced, and, because what is outstanding may become that, as
// long as anything is outstanding once its guest is suspended or it is being closed: from then on
// another disk may follow it. Of a process that is killed, what it had lost is known, and not what
// it had outstanding. One that follows looks once, when it has learnt its identity and
// before its first write; disks that share a LUN for good do not wait for each other.
#include <fmt/format.h>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

constexpr Duration kPredecessorLook = std::chrono::milliseconds(20);

std::int64_t milliseconds_of(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace

void MultipathDevice::Impl::open_mark() {
  if (options_.marks_folder.empty() || identity_.wwid.empty()) {
    return;
  }
  auto mark = UnfencedMark::open(options_.marks_folder, identity_.wwid);
  if (!mark) {
    log_warning("multipath",
                "{}: writes that another disk of this host has lost at the same LUN are not "
                "noticed: {}",
                options_.alias, mark.error().message);
    return;
  }
  mark_ = std::move(*mark);
  if (mark_.others(reactor_.now())) {
    predecessor_ = true;
    predecessor_since_ = reactor_.now();
    predecessor_timer_.start_after(kPredecessorLook);
    log_info("multipath",
             "{}: writes wait: another disk of this host has lost some at the same LUN, which may "
             "still land there",
             options_.alias);
  }
}

void MultipathDevice::Impl::update_mark() {
  const bool may_be_lost = (suspended_ || closing_) && requests_ != 0;
  if (may_be_lost) {
    unfenced_until_ = reactor_.now() + options_.quiesce_time;
  }
  if (unfenced_.empty() && !may_be_lost) {
    mark_.clear();
  } else if (auto set = mark_.set(unfenced_until_); !set) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "multipath", "{}: {}",
                options_.alias, set.error().message);
  }
}

void MultipathDevice::Impl::on_predecessor_timer() {
  const Duration waited = reactor_.now() - predecessor_since_;
  if (mark_.others(reactor_.now()) && waited < options_.quiesce_time) {
    predecessor_timer_.start_after(kPredecessorLook);
    return;
  }
  predecessor_ = false;
  log_info("multipath", "{}: writes go on after {} ms: nothing of the other disk can land any more",
           options_.alias, milliseconds_of(waited));
  release_held();
}

}  // namespace iscsi_blkback
