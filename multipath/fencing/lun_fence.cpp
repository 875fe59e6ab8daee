#include "multipath/fencing/lun_fence.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

// While nobody waits, or no path could carry the fence.
constexpr Duration kLunFenceLook = milliseconds(100);
// Our own commands may take so long to finish before a reset; how often that is looked at. For how
// long requests wait for its answer.
constexpr Duration kDrainTime = milliseconds(200);
constexpr Duration kDrainLook = milliseconds(1);
constexpr Duration kResetPause = milliseconds(200);
// Between two tries; twice as long each time.
constexpr Duration kLunFenceRetry = milliseconds(1000);
constexpr std::uint32_t kMaxRetryDoublings = 4;
// A path that is back is kept out of use by a preemption of it for so long at most.
constexpr Duration kPreemptionHold = milliseconds(5000);

}  // namespace

LunFence::LunFence(Reactor& reactor, const Options& options, const UnfencedWrites& unfenced,
                   Command& command, DiskSteps& steps, DiskLog& log, Owner& owner)
    : reactor_(reactor),
      options_(options),
      unfenced_(unfenced),
      command_(command),
      steps_(steps),
      log_(log),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<LunFence*>(self)->on_timer(); }, this) {}

void LunFence::suspend() {
  if (pausing_ && !outstanding_) {
    end(true);
  }
}

void LunFence::stop() {
  stopped_ = true;
  give_up_reset();
  timer_.stop();
}

// What is lost at this time or before has settled.
TimePoint LunFence::settled_harmless_at(TimePoint now) const {
  return now - options_.settle_time + options_.quiesce_time;
}

void LunFence::start() {
  const bool possible = options_.preempts || options_.resets;
  if (!possible || unfenced_.empty() || under_way() || timer_.armed() ||
      options_.settle_time >= options_.quiesce_time) {
    return;
  }
  // A moment later: what was lost with that one, one after the other, has settled, too, then.
  timer_.start_at(std::max(reactor_.now(), unfenced_.next_expiry() - options_.quiesce_time +
                                               options_.settle_time + kLunFenceLook));
}

void LunFence::on_timer() {
  if (outstanding_) {
    if (std::exchange(pausing_, false)) {
      late_ = true;
      steps_.due(DiskStep::pump);
    }
    command_.release_path();
    return;
  }
  if (pausing_) {
    look_whether_drained();
    return;
  }
  if (unfenced_.empty() || stopped_) {
    failures_ = 0;
    return;
  }
  const TimePoint now = reactor_.now();
  const TimePoint until = settled_harmless_at(now);
  const auto settled = [until](const UnfencedWrite& write) { return write.harmless_at <= until; };
  if (!unfenced_.any_of(settled)) {
    start();
    return;
  }
  if (!owner_.fence_is_wanted() || !command_.choose_path(until)) {
    timer_.start_after(kLunFenceLook);
    return;
  }
  if (options_.preempts) {
    send(kPreemptionHold);
  } else {
    pausing_ = true;
    give_up_at_ = now + kDrainTime;
    look_whether_drained();
  }
}

void LunFence::look_whether_drained() {
  const Command::Ready ready = command_.ready();
  if (ready == Command::Ready::no_path || reactor_.now() >= give_up_at_) {
    end(false);
  } else if (ready == Command::Ready::busy) {
    timer_.start_after(kDrainLook);
  } else {
    send(kResetPause);
  }
}

void LunFence::send(Duration patience) {
  sent_at_ = reactor_.now();
  outstanding_ = true;
  timer_.start_after(patience);
  command_.send();
}

void LunFence::on_answered(bool done, const char* how) {
  outstanding_ = false;
  if (late_) {
    doubt_requests();
  }
  if (done) {
    log_.info("lost writes are fenced by {}", command_.text());
  } else {
    log_.warning("{} does not fence lost writes: {}", command_.text(), how);
  }
  const bool fenced = command_.take_answer(done, settled_harmless_at(sent_at_));
  end(done);
  if (fenced) {
    owner_.on_lun_fenced();
  }
}

void LunFence::end(bool done) {
  if (std::exchange(pausing_, false)) {
    steps_.due(DiskStep::pump);
  }
  timer_.stop();
  if (done) {
    failures_ = 0;
    start();
  } else {
    timer_.start_after(kLunFenceRetry * (1 << std::min(failures_++, kMaxRetryDoublings)));
  }
  steps_.due_to_end();
}

// What the reset has ended of what was sent after it, its session does not know.
void LunFence::doubt_requests() {
  late_ = false;
  command_.doubt_requests();
}

void LunFence::give_up_reset() {
  if (!options_.preempts && std::exchange(outstanding_, false)) {
    command_.abandon();
    doubt_requests();
    end(false);
  }
}

}  // namespace iscsi_blkback
