// WriteCacheView: whether the disk's LUN has a write cache, as far as its paths have told. Where
// they disagree, the worse counts, until one that was asked later denies that there is one: answers
// cross each other. A value.
#pragma once

#include <optional>

#include "base/clock.h"
#include "initiator/lun/logical_unit.h"

namespace iscsi_blkback {

class WriteCacheView {
 public:
  // asked_at: when the path was asked that has told it.
  void note(WriteCache told, TimePoint asked_at, TimePoint now) {
    if (told != WriteCache::off) {
      told_at_ = now;
      cache_ = cache_ == WriteCache::on ? WriteCache::on : told;
    } else if (!told_at_ || asked_at > *told_at_) {
      cache_ = WriteCache::off;
    }
  }
  [[nodiscard]] WriteCache state() const { return cache_; }

 private:
  WriteCache cache_ = WriteCache::untold;
  std::optional<TimePoint> told_at_;  // that there is one, or that nobody knows
};

}  // namespace iscsi_blkback
