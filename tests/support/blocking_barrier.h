// BlockingBarrier: a LunWriteBarrier whose file I/O is done at once, where the product has other threads do it
// (LunTurn's jobs). For tests; any thread.
#pragma once

#include <string>
#include <utility>

#include "multipath/fencing/lun_write_barrier.h"

namespace iscsi_blkback {

class BlockingBarrier final : public LunWriteBarrier {
 public:
  [[nodiscard]] static Result<BlockingBarrier> enter(const std::string& folder,
                                                     const std::string& key, const Holder& holder,
                                                     TimePoint now = {},
                                                     const BarrierNames& names = {}) {
    return LunWriteBarrier::enter(folder, key, holder, now, names)
        .map([](LunWriteBarrier&& entered) { return BlockingBarrier(std::move(entered)); });
  }
  BlockingBarrier() = default;

  // True: other disks at the LUN, which knew it by another name, had not seen this one.
  [[nodiscard]] Result<bool> follow_file() {
    if (!entered()) {
      return false;
    }
    BarrierFollow follow = begin_follow();
    follow.seeks_removed = false;
    follow.run();
    return end_follow(std::move(follow), {});
  }
  void set_use(HolderUse use, std::uint64_t vm, TimePoint now) {
    if (resumes(use)) {
      (void)follow_file();  // where a disk that has taken the guest over may be
    }
    tell_use(use, vm, now);
  }
  [[nodiscard]] Others look(TimePoint now) {
    search_removed(now);
    return LunWriteBarrier::look(now);
  }

 private:
  explicit BlockingBarrier(LunWriteBarrier&& entered) : LunWriteBarrier(std::move(entered)) {}
};

}  // namespace iscsi_blkback
