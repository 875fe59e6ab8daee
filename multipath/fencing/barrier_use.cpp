#include "multipath/fencing/barrier_use.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_slot.h"

namespace iscsi_blkback {

using barrier_layout::kSlots;
using barrier_layout::Slot;

namespace {

template <class Use>
void for_each_slot_in_use(const std::string& folder, Use&& use) {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    const auto file = BarrierFile::open_existing(at->path().string());
    for (std::size_t index = 0; file && index < kSlots; ++index) {
      if (SharedField(file->slot(index).in_use).load() != 0) {
        use(*file, index);
      }
    }
  }
}

}  // namespace

void note_death_in_barriers(const std::string& folder, std::int32_t pid, TimePoint now) {
  for_each_slot_in_use(folder, [&](const BarrierFile& file, std::size_t index) {
    Slot& slot = file.slot(index);
    if (slot.pid == pid && file.try_lock_shared(index)) {
      (void)note_death(slot, now);
      file.unlock(index);
      file.note_change();
    }
  });
}

BarrierUse use_of_barriers(const std::string& folder, TimePoint now) {
  BarrierUse most = BarrierUse::none;
  for_each_slot_in_use(folder, [&](const BarrierFile& file, std::size_t index) {
    Slot& slot = file.slot(index);
    if (!file.try_lock_shared(index)) {
      const bool runs = use_of(slot) == HolderUse::runs;
      most = std::max(most, runs ? BarrierUse::running : BarrierUse::ending);
      return;
    }
    if (!is_harmless(slot) && now < harmless_at(slot, note_death(slot, now))) {
      most = std::max(most, BarrierUse::ending);
    }
    file.unlock(index);
  });
  return most;
}

}  // namespace iscsi_blkback
