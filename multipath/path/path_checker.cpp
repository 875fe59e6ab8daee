#include "multipath/path/path_checker.h"

#include <algorithm>
#include <utility>

#include "base/words.h"

namespace iscsi_blkback {
namespace {

// A path that an error has failed is looked at more often than a good one, so that a disk without
// any other path is back soon.
constexpr std::chrono::milliseconds kFailedPollingInterval{1000};
// A check that stays unanswered on a live connection is aborted by the session, as any command
// (command_timeout). Where that is switched off, after so many checker_timeouts the owner is told
// again.
constexpr int kStuckTimeouts = 6;
// Unit attentions that one check clears before it leaves the rest to the next.
constexpr std::uint32_t kMaxCheckAttentions = 5;
constexpr int kRdacPage = 0xc9;

constexpr Word<PathCheckerKind> kCheckerWords[] = {
    {"tur", PathCheckerKind::tur},
    {"directio", PathCheckerKind::directio},
    {"readsector0", PathCheckerKind::directio},  // its old name
    {"rdac", PathCheckerKind::rdac},
    {"none", PathCheckerKind::none},
};

}  // namespace

const char* to_string(PathCheckerKind kind) {
  return word_for<kCheckerWords>(kind);
}

std::optional<PathCheckerKind> path_checker_named(std::string_view name) {
  return named<kCheckerWords>(name);
}

Duration with_jitter(Duration interval, std::uint64_t random) {
  const auto most = static_cast<std::uint64_t>(interval.count() / 10 + 1);
  return interval - Duration(static_cast<Duration::rep>(random % most));
}

PathChecker::PathChecker(Reactor& reactor, LogicalUnit& logical_unit,
                         const PathCheckerOptions& options, Owner& owner)
    : reactor_(reactor),
      logical_unit_(logical_unit),
      options_(options),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<PathChecker*>(self)->on_timer(); }, this),
      interval_(options.polling_interval) {}

PathChecker::~PathChecker() {
  ISCSI_BLKBACK_ASSERT(idle());
}

void PathChecker::stop() {
  stopped_ = true;
  timer_.stop();
}

Duration PathChecker::widened() const {
  return std::max<Duration>(std::min<Duration>(interval_ * 2, options_.max_polling_interval),
                            options_.polling_interval);
}

void PathChecker::look_later(bool good) {
  good_ = good;
  if (stopped_) {
    return;
  }
  if (outstanding_) {  // from before what the owner has just been busy with
    timer_.start_after(patience());
    return;
  }
  const Duration interval =
      good ? interval_ : std::min<Duration>(options_.polling_interval, kFailedPollingInterval);
  timer_.start_after(with_jitter(interval, reactor_.random()));
}

void PathChecker::on_timer() {
  if (outstanding_) {
    const bool again = std::exchange(overdue_, true);
    if (!again && logical_unit_.session().options().command_timeout.count() == 0) {
      timer_.start_after(patience() * (kStuckTimeouts - 1));
    }
    owner_.on_check_overdue(again);
    return;
  }
  if (good_ && (std::exchange(passed_, false) || options_.kind == PathCheckerKind::none)) {
    interval_ = widened();
    look_later(true);
    return;
  }
  owner_.on_look_due();
}

void PathChecker::check() {
  ISCSI_BLKBACK_ASSERT(!outstanding_ && !stopped_);
  attentions_ = 0;
  send();
}

void PathChecker::send() {
  switch (options_.kind) {
    case PathCheckerKind::tur:
    case PathCheckerKind::none:
      logical_unit_.prepare_test_unit_ready(task_);
      break;
    case PathCheckerKind::directio: {
      BlockRequest read;
      read.operation = BlockOperation::read;
      read.sector_count = logical_unit_.logical_block_bytes() / kSectorBytes;
      read.data = buffer_.data();
      logical_unit_.prepare_io(task_, read);
      break;
    }
    case PathCheckerKind::rdac:
      logical_unit_.prepare_inquiry(task_, kRdacPage, last_page_.size(), buffer_);
      break;
  }
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<PathChecker*>(task.owner)->on_complete();
  };
  outstanding_ = true;
  overdue_ = false;
  sent_at_ = reactor_.now();
  timer_.start_after(patience());
  logical_unit_.session().submit(task_);
}

void PathChecker::on_complete() {
  outstanding_ = false;
  logical_unit_.note_question(task_, reactor_.now() - sent_at_);
  if (stopped_) {
    owner_.on_checker_idle();
    return;
  }
  // A page may be shorter than the room for it.
  ErrorClass outcome =
      classify(task_, options_.kind == PathCheckerKind::rdac ? Transfer::at_most : Transfer::whole);
  if (outcome == ErrorClass::connection_lost || outcome == ErrorClass::not_sent) {
    return;  // the session tells
  }
  if (refuses_form_of_transfer(task_) && logical_unit_.try_other_form(task_) &&
      logical_unit_.session().state() == SessionState::logged_in) {
    send();
    return;
  }
  const bool attention =
      outcome == ErrorClass::unit_attention && ++attentions_ <= kMaxCheckAttentions;
  if (attention && logical_unit_.session().state() == SessionState::logged_in) {
    send();
    return;
  }
  if (outcome == ErrorClass::communication_failure) {
    outcome = ErrorClass::not_ready;  // of a question about the LUN it is no request's affair
  }
  // directio wants the data; whatever else the LUN says of a read of its first block, this path
  // does not give it. What has rules of its own keeps them.
  if (options_.kind == PathCheckerKind::directio &&
      (outcome == ErrorClass::hardware_error || outcome == ErrorClass::medium_unrecovered ||
       outcome == ErrorClass::medium_other || outcome == ErrorClass::target_failure ||
       outcome == ErrorClass::aborted_command)) {
    outcome = ErrorClass::not_ready;
  }
  bool changed = false;
  if (outcome == ErrorClass::success) {
    interval_ = widened();
    if (options_.kind == PathCheckerKind::rdac) {
      changed = !std::equal(last_page_.begin(), last_page_.end(), buffer_.begin());
      std::copy_n(buffer_.begin(), last_page_.size(), last_page_.begin());
    }
  }
  owner_.on_checked(outcome, changed);
}

const char* PathChecker::question() const {
  switch (options_.kind) {
    case PathCheckerKind::directio:
      return "a read of the first block";
    case PathCheckerKind::rdac:
      return "INQUIRY of page 0xC9";
    case PathCheckerKind::tur:
    case PathCheckerKind::none:
      break;
  }
  return "TEST UNIT READY";
}

}  // namespace iscsi_blkback
