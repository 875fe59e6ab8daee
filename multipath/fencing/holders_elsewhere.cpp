#include "multipath/fencing/holders_elsewhere.h"

#include <algorithm>
#include <utility>

#include "multipath/fencing/barrier_slot.h"

namespace iscsi_blkback {

using barrier_layout::kSlots;
using barrier_layout::Slot;

void RemovedHolders::seek(const BarrierFile& file) {
  sought_ = true;
  searched_ = false;
  most_ = 0;
  returned_before_ = SharedField(file.header().returned).load();
  harmless_at_ = {};
}

void RemovedHolders::found(std::uint64_t there, const BarrierFile& file, TimePoint now,
                           Duration quiesce_time) {
  searched_ = true;
  if (there != 0) {
    most_ = std::max(most_, there);
    harmless_at_ = now + quiesce_time;
    return;
  }
  // What is gone has come, or has died, and nobody knows with what under way.
  sought_ =
      SharedField(file.header().returned).load() - returned_before_ < most_ && now < harmless_at_;
}

void FormerFiles::set(std::vector<BarrierFile> former, std::vector<BarrierFile> ambiguous) {
  former_ = std::move(former);
  ambiguous_ = std::move(ambiguous);
}

// The dead of the LUN's other files have been brought to this one.
std::string FormerFiles::holder(TimePoint now) {
  const std::string in_former = drop_files_without_holders(former_, std::nullopt);
  return in_former.empty() ? drop_files_without_holders(ambiguous_, now) : in_former;
}

// now: also what the dead have left there counts. A holder in the first file that stays.
std::string FormerFiles::drop_files_without_holders(std::vector<BarrierFile>& files,
                                                    std::optional<TimePoint> now) {
  std::string holder;
  while (!files.empty() && holder.empty()) {
    const BarrierFile& file = files.back();
    for (std::size_t index = 0; index < kSlots && holder.empty(); ++index) {
      Slot& slot = file.slot(index);
      if (SharedField(slot.in_use).load() == 0) {
        continue;
      }
      const bool dead = file.try_lock_shared(index);
      if (!dead || (now && is_in_use_after_death(slot, *now))) {
        holder = holder_text(slot);
      }
      if (dead) {
        file.unlock(index);
      }
    }
    if (holder.empty()) {
      files.pop_back();
    }
  }
  return holder;
}

}  // namespace iscsi_blkback
