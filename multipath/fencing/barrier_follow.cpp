#include "multipath/fencing/barrier_follow.h"

#include <utility>

#include "multipath/fencing/slot_claim.h"

namespace iscsi_blkback {

void BarrierFollow::run() {
  if (auto looked = look(); !looked) {
    found.reset();
    error = looked.error();
  }
  // In the file where the disk stays: elsewhere it has not come yet.
  if (seeks_removed && !(found && found->slot)) {
    removed = view.holders_of_removed_files(names);
  }
}

Result<void> BarrierFollow::look() {
  if (names_are_told && view.is_current() && !view.is_forwarded()) {
    return {};
  }
  auto locked = BarrierFolder::lock(folder);
  if (!locked) {
    return tl::unexpected(locked.error());
  }
  const bool is_current = view.is_current();
  const bool stays = is_current && !view.is_forwarded();
  auto files = locked->find(key, names, stays ? &view : nullptr);
  if (!files) {
    return tl::unexpected(files.error());
  }
  found.emplace(Found{.folder = std::move(*locked),
                      .files = std::move(*files),
                      .names = {},
                      .was_removed = !is_current});
  const BarrierFile& file = found->files.file;
  if (!file.is_same_file(view)) {
    const auto taken = take_slot(file, holder);
    if (!taken) {
      return tl::unexpected(taken.error());
    }
    found->slot = *taken;
    auto opened = BarrierFile::open_existing(file.path());
    if (!opened) {
      return tl::unexpected(opened.error());
    }
    found->view = std::move(*opened);
    bring_dead(view, file, holder, slot);
  }
  found->names = file.names();
  bring_dead_of(found->files.former, file, holder);
  return {};
}

}  // namespace iscsi_blkback
