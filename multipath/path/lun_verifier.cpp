#include "multipath/path/lun_verifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/scsi/error_class.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMostUnanswered = 8;

}  // namespace

LunVerifier::LunVerifier(Reactor& reactor, LogicalUnit& logical_unit,
                         std::chrono::milliseconds answer_time, Owner& owner)
    : reactor_(reactor),
      logical_unit_(logical_unit),
      answer_time_(answer_time),
      owner_(owner),
      question_timer_(
          reactor,
          [](void* self) noexcept { static_cast<LunVerifier*>(self)->on_question_timer(); }, this) {
}

void LunVerifier::set_identity(Identity identity) {
  identity_ = identity;
  owner_.on_identity();
}

bool LunVerifier::identify() {
  set_identity(Identity::in_doubt);
  if (identifying_) {
    logical_unit_.start_over();
    return false;
  }
  cancel();
  identifying_ = true;
  identifying_since_ = reactor_.now();
  logical_unit_.identify(
      [](void* self, Result<LogicalUnitIdentity> identity) noexcept {
        static_cast<LunVerifier*>(self)->on_identified(std::move(identity));
      },
      this);
  question_since_ = identifying_since_;
  question_timer_.start_after(patience());
  return true;
}

void LunVerifier::on_identified(Result<LogicalUnitIdentity> identity) {
  identifying_ = false;
  question_timer_.stop();
  if (identity) {
    block_count_ = identity->block_count;
    block_bytes_ = identity->logical_block_bytes;
  }
  owner_.on_identified(std::move(identity));
}

void LunVerifier::read_access(bool serves) {
  if (logical_unit_.unanswered() >= kMostUnanswered / 2) {
    return;
  }
  reading_access_ = true;
  question_since_ = reactor_.now();
  question_timer_.start_after(patience());
  logical_unit_.read_access(
      [](void* self, Result<LogicalUnitIdentity> identity) noexcept {
        static_cast<LunVerifier*>(self)->on_access(std::move(identity));
      },
      this, serves);
}

void LunVerifier::on_access(Result<LogicalUnitIdentity> identity) {
  reading_access_ = false;
  question_timer_.stop();
  owner_.on_access(std::move(identity));
}

void LunVerifier::cancel() {
  question_timer_.stop();
  if (identifying_ || reading_access_) {
    logical_unit_.cancel_identify();
    reading_access_ = false;
    if (std::exchange(identifying_, false)) {
      set_identity(Identity::unknown);
    }
  }
}

void LunVerifier::ask_for_capacity() {
  logical_unit_.prepare_read_capacity(capacity_task_, capacity_buffer_);
  capacity_task_.owner = this;
  capacity_task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<LunVerifier*>(task.owner)->on_capacity();
  };
  capacity_outstanding_ = true;
  logical_unit_.session().submit(capacity_task_);
}

// An error here is the checker's and the requests' affair.
void LunVerifier::on_capacity() {
  capacity_outstanding_ = false;
  bool changed = false;
  if (classify(capacity_task_, Transfer::at_most) == ErrorClass::success) {
    const Result<Capacity> capacity = logical_unit_.capacity_of(capacity_task_);
    changed = capacity && (capacity->block_count != block_count_ ||
                           capacity->logical_block_bytes != block_bytes_);
  }
  owner_.on_capacity(changed);
}

// Given up after less than an identification takes, a slow LUN would never be used, as it is found
// to be good again by the next check.
void LunVerifier::on_question_timer() {
  const TimePoint silent_at = logical_unit_.answered_at() + patience();
  const TimePoint ends_at = question_since_ + LogicalUnit::longest_identification(patience());
  if (reactor_.now() < std::min(silent_at, ends_at)) {
    question_timer_.start_at(std::min(silent_at, ends_at));
    return;
  }
  const bool silent = reactor_.now() >= silent_at;
  if (silent && identifying_ && logical_unit_.unanswered() >= kMostUnanswered) {
    logical_unit_.session().drop(
        Error{ErrorCode::timed_out, "the logical unit does not answer for too long"});
    return;
  }
  if (silent && reactor_.now() < ends_at && logical_unit_.do_without_answer()) {
    question_timer_.start_after(patience());
    return;
  }
  std::string why = silent
                        ? fmt::format("{} is not answered", logical_unit_.question())
                        : "the logical unit answers, but has not told in all this time who it is";
  logical_unit_.cancel_identify();
  if (reading_access_) {
    on_access(tl::unexpected(Error{ErrorCode::timed_out, std::move(why)}));
    return;
  }
  identifying_ = false;
  owner_.on_unanswered(std::move(why), silent);
}

}  // namespace iscsi_blkback
