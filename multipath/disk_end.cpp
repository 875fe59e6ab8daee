#include "multipath/disk_end.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

void DiskEnd::begin(bool wait_for_fences, void (*on_closed)(void* owner) noexcept, void* owner) {
  ISCSI_BLKBACK_ASSERT(!begun_);
  begun_ = true;
  wait_for_fences_ = wait_for_fences;
  on_closed_ = on_closed;
  owner_ = owner;
}

EndFacts DiskEnd::facts() const {
  EndFacts facts;
  facts.under_way =
      !queue_.idle() || !removals_.idle() || !turn_.idle() || fence_.must_be_awaited() ||
      !std::all_of(paths_.begin(), paths_.end(), [](const Path* path) { return path->idle(); }) ||
      std::any_of(paths_.all().begin(), paths_.all().end(), [](const Path* path) {
        return path->key().registering() || path->has_own_commands();
      });
  facts.waits_for_fences = wait_for_fences_ && !fence_.empty();
  facts.withdrawn = withdrawn_;
  facts.nothing_at_fences = nothing_at_fences_;
  return facts;
}

bool DiskEnd::give_keys_back() {
  bool given_back = true;
  for (Path* path : paths_.all()) {
    given_back = fence_.key_unregistered(*path) && given_back;
  }
  return given_back;
}

void DiskEnd::check(DiskSteps& steps) {
  if (!begun_ || over()) {
    return;
  }
  EndFacts now = facts();
  while (true) {
    switch (next_end_step(now)) {
      case EndStep::wait:
        return;
      case EndStep::give_keys_back:
        now.keys_given_back = give_keys_back();
        if (!now.keys_given_back) {
          return;
        }
        break;
      case EndStep::withdraw:
        turn_.leave();
        nothing_at_fences_ = fence_.withdraw();
        now.withdrawn = withdrawn_ = true;
        now.nothing_at_fences = nothing_at_fences_;
        break;
      case EndStep::end:
        steps.cancel();
        auto* const on_closed = std::exchange(on_closed_, nullptr);
        on_closed(owner_);  // may delete the disk
        return;
    }
  }
}

}  // namespace iscsi_blkback
