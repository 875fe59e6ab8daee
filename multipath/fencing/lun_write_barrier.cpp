#include "multipath/fencing/lun_write_barrier.h"

#include <fmt/format.h>

#include "multipath/fencing/slot_claim.h"

namespace iscsi_blkback {

using barrier_layout::kElsewhere;
using barrier_layout::kSlots;
using barrier_layout::Slot;

Result<LunWriteBarrier> LunWriteBarrier::enter(const std::string& folder, const std::string& key,
                                               const Holder& holder, TimePoint now,
                                               const BarrierNames& names) {
  // Until the slot is in use: nobody may forward the file before that.
  const auto lock = BarrierFolder::lock(folder);
  if (!lock) {
    return tl::unexpected(lock.error());
  }
  auto found = lock->find(key, names, nullptr);
  if (!found) {
    return tl::unexpected(found.error());
  }
  const auto slot = take_slot(found->file, holder);
  if (!slot) {
    return tl::unexpected(slot.error());
  }
  auto view = BarrierFile::open_existing(found->file.path());
  if (!view) {
    return tl::unexpected(view.error());
  }
  LunWriteBarrier barrier;
  barrier.folder_ = folder;
  barrier.key_ = key;
  barrier.names_ = names;
  barrier.holder_ = holder;
  barrier.file_ = std::move(found->file);
  barrier.view_ = std::move(*view);
  barrier.slot_ = *slot;
  barrier.entered_at_ = now;
  // A disk that comes to another file at the same moment has another place, too: the two may turn
  // out to be at one LUN.
  SharedField(barrier.file_.header().last_place).raise(found->last_place);
  bring_dead_of(found->former, barrier.file_, holder);
  barrier.come_from(*found, barrier.file_.names());
  barrier.removed_.seek(barrier.file_);
  SharedField(barrier.own().in_use).store(1);
  barrier.place().come_after_all_others(now);
  barrier.place().inherit_place(now);
  return barrier;
}

// Disks elsewhere are waited for from now on. told: the names of the file, which are those of the
// LUN, too.
void LunWriteBarrier::come_from(BarrierFolder::Found& found, const BarrierNames& told) {
  names_.add(told);
  file_.lock_names(slot_, names_);
  former_.set(std::move(found.former), std::move(found.ambiguous));
}

bool LunWriteBarrier::learn(const LunNames& told, const std::string& target_name) {
  if (entered() && names_.add(told, target_name)) {
    names_are_told_ = false;
  }
  return !names_are_told_;
}

bool LunWriteBarrier::learn(const BarrierNames& told) {
  if (entered() && names_.add(told)) {
    names_are_told_ = false;
  }
  return !names_are_told_;
}

BarrierFollow LunWriteBarrier::begin_follow() {
  return {.folder = folder_,
          .key = key_,
          .names = names_,
          .holder = holder_,
          .slot = slot_,
          .names_are_told = names_are_told_,
          .seeks_removed = removed_.sought(),
          .view = std::move(view_)};
}

Result<bool> LunWriteBarrier::end_follow(BarrierFollow follow, TimePoint now) {
  if (!entered()) {
    return false;
  }
  view_ = std::move(follow.view);
  if (follow.removed) {
    removed_.found(*follow.removed, file_, now, holder_.quiesce_time);
  }
  if (follow.error) {
    return tl::unexpected(*follow.error);
  }
  if (!follow.found) {
    return false;
  }
  BarrierFollow::Found& found = *follow.found;
  const bool has_the_lun = had_the_lun_ && use_of(own()) == HolderUse::runs;
  const bool moves = found.slot.has_value();
  Result<void> moved;
  if (moves) {
    moved = move_to(found);
    if (!has_the_lun) {
      removed_.seek(file_);  // whoever has it has perhaps not come yet
    }
  }
  // Others that were learnt in the meantime, the next one tells.
  names_are_told_ = names_.known.size() == follow.names.known.size();
  come_from(found.files, found.names);
  if (has_the_lun) {
    former_.set({}, {});
  }
  if (!moved) {
    return tl::unexpected(moved.error());
  }
  return moves && !found.was_removed;
}

// The former file is left when the disk is seen in the new one, where it comes before those that
// have come there in the meantime, as their turns are later ones. The error: without all the
// nexuses.
Result<void> LunWriteBarrier::move_to(BarrierFollow::Found& found) {
  const BarrierFile& file = found.files.file;
  Result<void> nexuses = copy_slot(file_, slot_, file, *found.slot);
  SharedField(file.header().writer).raise(SharedField(file_.header().writer).load());
  if (found.was_removed) {
    (void)SharedField(file.header().returned).add(1);
  }
  file.note_change();
  set_free(own());  // nobody there shall take it for a dead one's
  file_ = std::move(found.files.file);
  view_ = std::move(found.view);
  slot_ = *found.slot;
  seen_changes_ =
      SharedField(file_.header().changes).load() - 1;  // what it has seen is no matter here
  return nexuses;
}

// As long as the guest runs, its writes are no concern of others.
void LunWriteBarrier::tell_if_not_running() {
  if (use_of(own()) != HolderUse::runs) {
    file_.note_change();
  }
}

Result<void> LunWriteBarrier::set_nexus(std::uint32_t path, const BarrierNexus& nexus) {
  if (!entered()) {
    return {};
  }
  if (path >= own().nexuses_used) {
    return fail(ErrorCode::exhausted,
                fmt::format("{} has no space for the session of a path", file_.path()));
  }
  write_nexus(file_.nexus(slot_, path), nexus);
  return {};
}

void LunWriteBarrier::forget_nexus(std::uint32_t path) {
  if (entered() && path < own().nexuses_used) {
    SharedField(file_.nexus(slot_, path).in_use).store(0);
  }
}

void LunWriteBarrier::set_outstanding(std::uint32_t path, bool writes) {
  if (!entered()) {
    return;
  }
  const SharedField outstanding(own().outstanding);
  const PathMask others = outstanding.load() & ~path_bit(path);
  outstanding.store_release(writes ? others | path_bit(path) : others);
  if (writes) {
    had_the_lun_ = true;
    const std::uint64_t turn = SharedField(own().turn).load();
    if (const SharedField writer(file_.header().writer); writer.load() != turn) {
      writer.store(turn);
      place().pass_on_former_places();
    }
  }
  tell_if_not_running();
}

void LunWriteBarrier::set_unfenced(PathMask paths, bool anywhere, TimePoint until) {
  if (!entered()) {
    return;
  }
  // What dies between the two stores must seem too dangerous, not too harmless.
  if (paths != 0 || anywhere) {
    SharedField(own().unfenced_until_ns).store(until.time_since_epoch().count());
  }
  SharedField(own().unfenced).store(anywhere ? paths | kElsewhere : paths);
  tell_if_not_running();
}

bool LunWriteBarrier::resumes(HolderUse use) const {
  return entered() && !overtaken_ && use == HolderUse::runs && use_of(own()) != HolderUse::runs;
}

void LunWriteBarrier::tell_use(HolderUse use, std::uint64_t vm, TimePoint now) {
  if (!entered() || overtaken_ || (use_of(own()) == use && SharedField(own().vm).load() == vm)) {
    return;
  }
  const bool resumed = resumes(use);
  if (use == HolderUse::suspended && use_of(own()) != HolderUse::suspended) {
    SharedField(own().suspended_at_ns).store(now.time_since_epoch().count());
    note_known_writer();
  }
  SharedField(own().vm).store(vm);
  SharedField(own().use).store(static_cast<std::uint32_t>(use));
  if (resumed && place().has_an_heir()) {
    place().take_next_heirs_turn(place_of(SharedField(own().turn).load()), now);
  } else {
    file_.note_change();
  }
}

// Unless it knows no more than at the last suspend.
void LunWriteBarrier::note_known_writer() {
  if (const SharedField known_writer(own().known_writer);
      had_the_lun_ && known_writer.load() == 0 && !is_shared(own())) {
    known_writer.store(SharedField(file_.header().writer).load() + 1);
  }
}

void LunWriteBarrier::leave() {
  if (entered()) {
    if (is_harmless(own())) {
      set_free(own());
    }
    file_.note_change();
    file_ = BarrierFile();  // and with it goes the lock
    view_ = BarrierFile();
  }
}

void LunWriteBarrier::leave_place(TimePoint now) {
  if (!entered() || overtaken_ || is_passed_on(own())) {
    leave();
    return;
  }
  note_known_writer();
  SharedField(own().suspended_at_ns).store(now.time_since_epoch().count());
  SharedField(own().died_at_ns).store(now.time_since_epoch().count());
  SharedField(own().use).store(static_cast<std::uint32_t>(HolderUse::kept));
  file_.note_change();
  file_ = BarrierFile();
  view_ = BarrierFile();
}

void LunWriteBarrier::search_removed(TimePoint now) {
  if (entered() && removed_.sought()) {
    removed_.found(file_.holders_of_removed_files(names_), file_, now, holder_.quiesce_time);
  }
}

LunWriteBarrier::Others LunWriteBarrier::look(TimePoint now) {
  if (!entered()) {
    return {};
  }
  place().inherit_place(now);
  // Whoever comes to this file from another one is seen there, or here afterwards: also by the
  // search for those that have removed files, which was before.
  const std::string elsewhere = former_.holder(now);
  // What changes between the looks at two slots may make both seem free: who comes before this disk
  // may have got its turn after the look at it, from one whose end was seen already.
  constexpr int kMostLooks = 10;
  Others others;
  int looks = 0;
  do {
    seen_changes_ = SharedField(file_.header().changes).load();
    others = look_at_slots(now);
  } while (changed() && ++looks < kMostLooks);
  if (looks == kMostLooks) {
    others.late_writes_of = "disks that come and go just now";
  }
  if (!elsewhere.empty()) {
    others.in_use_by = elsewhere;
  }
  if (removed_.sought()) {
    others.late_writes_of = fmt::format("a disk whose file in {} was removed", folder_);
  }
  if (use_of(own()) == HolderUse::runs) {
    had_the_lun_ = others.may_write();
    const std::uint64_t known_writer = SharedField(own().known_writer).load();
    if (had_the_lun_ && known_writer != 0 &&
        SharedField(file_.header().writer).load() + 1 != known_writer) {
      tell_use(HolderUse::ended, SharedField(own().vm).load(), now);
      overtaken_ = true;
    }
    if (had_the_lun_) {
      SharedField(own().known_writer).store(0);
    }
  }
  others.overtaken = overtaken_;
  return others;
}

LunWriteBarrier::Others LunWriteBarrier::look_at_slots(TimePoint now) {
  Others others;
  for (std::size_t index = 0; index < kSlots; ++index) {
    Slot& slot = file_.slot(index);
    if (index == slot_ || SharedField(slot.in_use).load() == 0) {
      continue;
    }
    if (file_.try_lock_shared(index)) {
      // Nobody takes the slot as long as the lock is held here. Others may find out the same.
      if (auto dead = look_at_dead(index, now)) {
        others.dead.push_back(*dead);
      } else if (SharedField(slot.in_use).load() != 0 && place().is_heir_of(slot)) {
        set_free(slot);  // the place that was kept is this one's
      } else if (SharedField(slot.in_use).load() != 0 && place().comes_first(slot)) {
        others.in_use_by = holder_text(slot);  // its place is kept
      }
      file_.unlock(index);
    } else if (const HolderUse use = use_of(slot);
               use == HolderUse::ended ||
               (use == HolderUse::suspended && place().is_heir_of(slot))) {
      if (!is_harmless(slot)) {
        others.late_writes_of = holder_text(slot);
      }
    } else if (place().comes_first(slot)) {
      others.in_use_by = holder_text(slot);
    } else if (!is_harmless(slot) && !(is_shared(slot) && is_shared(own()))) {
      others.late_writes_of = holder_text(slot);  // it had the LUN before the two saw each other
    }
  }
  return others;
}

// nullopt: it is harmless, and the slot is free for others then, unless the place is kept.
std::optional<LunWriteBarrier::DeadHolder> LunWriteBarrier::look_at_dead(std::size_t index,
                                                                         TimePoint now) const {
  Slot& slot = file_.slot(index);
  const TimePoint died_at = note_death(slot, now);
  const DeadHolder dead{.slot = index,
                        .turn = SharedField(slot.turn).load(),
                        .paths = paths_of(slot),
                        .until = harmless_at(slot, died_at)};
  if (!is_harmless(slot) && now < dead.until) {
    return dead;
  }
  if (is_place_kept(slot, died_at, now)) {
    return std::nullopt;
  }
  set_free(slot);
  file_.note_change();
  return std::nullopt;
}

bool LunWriteBarrier::hold_dead(const PredecessorPath& predecessor) const {
  if (!file_.try_lock_shared(predecessor.slot)) {
    return false;
  }
  if (SharedField(file_.slot(predecessor.slot).turn).load() == predecessor.turn) {
    return true;
  }
  file_.unlock(predecessor.slot);
  return false;
}

std::optional<BarrierNexus> LunWriteBarrier::nexus_of(const PredecessorPath& predecessor) const {
  if (!hold_dead(predecessor)) {
    return std::nullopt;
  }
  std::optional<BarrierNexus> nexus;
  if (predecessor.path < file_.slot(predecessor.slot).nexuses_used) {
    nexus = read_nexus(file_.nexus(predecessor.slot, predecessor.path));
  }
  file_.unlock(predecessor.slot);
  return nexus;
}

void LunWriteBarrier::reinstated(const PredecessorPath& predecessor) {
  // Its time may have been over in the meantime, and the slot have gone to another disk.
  if (!hold_dead(predecessor)) {
    return;
  }
  Slot& slot = file_.slot(predecessor.slot);
  const PathMask path = path_bit(predecessor.path);
  SharedField(slot.outstanding).clear_bits(path);
  SharedField(slot.unfenced).clear_bits(path & ~kElsewhere);
  file_.unlock(predecessor.slot);
  file_.note_change();
}

}  // namespace iscsi_blkback
