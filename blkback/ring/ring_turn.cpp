#include "blkback/ring/ring_turn.h"

#include <algorithm>
#include <span>
#include <utility>

namespace iscsi_blkback {

RingTurn::Part::~Part() {
  ISCSI_BLKBACK_ASSERT(!in_turn_);
  if (linked()) {
    unlink();
  }
  turn_.room_ -= room_;
}

void RingTurn::Part::make_room(std::size_t copies) {
  ISCSI_BLKBACK_ASSERT(room_ == 0);
  room_ = copies;
  turn_.room_ += copies;
  turn_.wanted_.reserve(turn_.room_);
  turn_.copied_.reserve(turn_.room_);
}

void RingTurn::Part::schedule() {
  if (in_turn_) {
    again_ = true;
  } else if (!linked()) {
    turn_.due_.push_back(*this);
    turn_.run_.schedule();
  }
}

RingTurn::RingTurn(Reactor& reactor, GrantTable& grants)
    : reactor_(reactor),
      grants_(grants),
      run_(
          reactor, [](void* self) noexcept { static_cast<RingTurn*>(self)->run(); }, this) {}

void RingTurn::add_copy(const GrantCopySegment& segment) {
  ISCSI_BLKBACK_ASSERT(wanted_.size() < room_);
  wanted_.push_back(segment);
}

bool RingTurn::copied(std::size_t first, std::size_t count) const {
  const auto own = std::span(copied_).subspan(first, count);
  return std::all_of(own.begin(), own.end(), [](const auto& segment) { return segment.ok; });
}

void RingTurn::run() noexcept {
  IntrusiveList<Part> parts;
  parts.take_all(due_);
  parts.for_each([](Part& part) {
    part.in_turn_ = true;
    part.work_.begin_turn();
  });
  copy();
  parts.for_each([](Part& part) { part.work_.end_turn(); });
  if (!wanted_.empty()) {
    copy();
    parts.for_each([](Part& part) { part.work_.end_turn(); });
  }
  ISCSI_BLKBACK_ASSERT(wanted_.empty());
  while (Part* part = parts.pop_front()) {
    part->in_turn_ = false;
    if (std::exchange(part->again_, false)) {
      part->schedule();
    }
  }
}

void RingTurn::copy() noexcept {
  copied_.swap(wanted_);
  wanted_.clear();
  if (copied_.empty()) {
    return;
  }
  if (const Result<void> done = grants_.copy(copied_); !done) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::error, "grant table", "{}",
                done.error().message);
    for (GrantCopySegment& segment : copied_) {
      segment.ok = false;
    }
  }
}

}  // namespace iscsi_blkback
