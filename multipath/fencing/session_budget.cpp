#include "multipath/fencing/session_budget.h"

#include <utility>

#include "base/result.h"

namespace iscsi_blkback {

SessionBudget::~SessionBudget() {
  ISCSI_BLKBACK_ASSERT(taken() == 0 && line_.empty());
}

bool SessionBudget::take(std::size_t sessions) {
  if (!line_.empty() || others_ + sessions > kMaxSessions - kFenceReserve ||
      taken() + sessions > kMaxSessions) {
    return false;
  }
  others_ += sessions;
  return true;
}

void SessionBudget::give_back(std::size_t sessions) {
  ISCSI_BLKBACK_ASSERT(others_ >= sessions);
  others_ -= sessions;
  serve_line();
}

void SessionBudget::serve_line() {
  if (std::exchange(serving_, true)) {
    return;  // one that was served has given its turn back at once
  }
  while (!line_.empty() && taken() < kMaxSessions) {
    FenceTurn& next = *line_.front();
    line_.erase(line_.begin());
    next.waits_ = false;
    next.taken_ = true;
    ++fences_;
    next.on_turn_(next.owner_);
  }
  serving_ = false;
}

bool FenceTurn::take() {
  if (taken_ || waits_) {
    return taken_;
  }
  if (budget_.line_.empty() && budget_.taken() < SessionBudget::kMaxSessions) {
    taken_ = true;
    ++budget_.fences_;
  } else {
    waits_ = true;
    budget_.line_.push_back(this);
  }
  return taken_;
}

void FenceTurn::give_back() {
  if (std::exchange(waits_, false)) {
    std::erase(budget_.line_, this);
  }
  if (std::exchange(taken_, false)) {
    --budget_.fences_;
    budget_.serve_line();
  }
}

}  // namespace iscsi_blkback
