#include "multipath/fencing/lun_write_barrier.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace iscsi_blkback {
namespace {

using barrier_layout::kElsewhere;
using barrier_layout::kHeirBits;
using barrier_layout::kMaxHeir;
using barrier_layout::kSlots;
using barrier_layout::Nexus;
using barrier_layout::Slot;

std::optional<SocketAddress> parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data() + colon + 1, end, port).ptr != end) {
    return std::nullopt;
  }
  const Result<SocketAddress> address = SocketAddress::parse(std::string(host), port);
  return address ? std::optional(*address) : std::nullopt;
}

// A process notices within a second that its guest is suspended; the guest is there again, at the
// place where it is moved to, some 100 ms after the suspend.
constexpr Duration kNoticeTime = std::chrono::seconds(2);

// In this order: what is lost is unfenced before it is no longer outstanding.
PathMask paths_of(Slot& slot) {
  const PathMask outstanding = SharedField(slot.outstanding).load();
  return outstanding | (SharedField(slot.unfenced).load() & ~kElsewhere);
}

bool is_harmless(Slot& slot) {
  return SharedField(slot.outstanding).load() == 0 && SharedField(slot.unfenced).load() == 0;
}

TimePoint time_of(std::int64_t nanoseconds) {
  return TimePoint(std::chrono::nanoseconds(nanoseconds));
}

// The first who finds out decides. What was noted before the host started anew counts in another
// time, and may lie in the future of this one.
TimePoint note_death(Slot& slot, TimePoint now) {
  const SharedField died_at(slot.died_at_ns);
  const std::int64_t now_ns = now.time_since_epoch().count();
  const std::int64_t noted = died_at.load();
  if (noted == 0 || noted > now_ns) {
    (void)died_at.replace(noted, now_ns);
  }
  return time_of(died_at.load());
}

void set_free(Slot& slot) {
  SharedField(slot.outstanding).store(0);
  SharedField(slot.unfenced).store(0);
  SharedField(slot.in_use).store(0);
}

Duration quiesce_time_of(Slot& slot) {
  return std::clamp(Duration(SharedField(slot.quiesce_time_ns).load()), Duration(0),
                    barrier_layout::kLongestQuiesceTime);
}

// Whatever was lost, was lost before.
TimePoint harmless_at(Slot& slot, TimePoint died_at) {
  const TimePoint last = died_at + quiesce_time_of(slot);
  return SharedField(slot.outstanding).load() != 0
             ? last
             : std::min(last, time_of(SharedField(slot.unfenced_until_ns).load()));
}

std::optional<BarrierNexus> read_nexus(Nexus& stored) {
  if (SharedField(stored.in_use).load() != 1) {
    return std::nullopt;
  }
  const auto portal = parse_address(text_of(stored.portal));
  const auto peer = parse_address(text_of(stored.peer));
  if (!portal || !peer) {
    return std::nullopt;
  }
  BarrierNexus nexus;
  nexus.isid = stored.isid;
  nexus.session_number = stored.session_number;
  nexus.initiator_name = text_of(stored.initiator_name);
  nexus.target_name = text_of(stored.target_name);
  nexus.portal = *portal;
  nexus.interface_binding = {.name = std::string(text_of(stored.interface_name)),
                             .hardware_address = std::string(text_of(stored.hardware_address)),
                             .address = std::string(text_of(stored.source_address))};
  nexus.login.portal = *peer;
  if (stored.portal_group_known != 0) {
    nexus.login.portal_group = stored.portal_group;
  }
  return nexus;
}

HolderUse use_of(Slot& slot) {
  return static_cast<HolderUse>(SharedField(slot.use).load());
}

bool may_have_an_heir(Slot& slot) {
  const HolderUse use = use_of(slot);
  return use == HolderUse::kept || use == HolderUse::suspended;
}

bool is_passed_on(Slot& slot) {
  return SharedField(slot.passed_on).load() != 0;
}

// Nobody holds the slot. died_at: note_death().
bool is_place_kept(Slot& slot, TimePoint died_at, TimePoint now) {
  return may_have_an_heir(slot) && !is_passed_on(slot) && now < died_at + quiesce_time_of(slot);
}

// Nobody holds the slot: whether the dead disk's place is kept, or its writes may still be about.
bool is_in_use_after_death(Slot& slot, TimePoint now) {
  const TimePoint died_at = note_death(slot, now);
  return is_place_kept(slot, died_at, now) ||
         (!is_harmless(slot) && now < harmless_at(slot, died_at));
}

// Also when its disk has died, until somebody finds that it is over.
bool concerns_others(Slot& slot) {
  return SharedField(slot.in_use).load() != 0 && (!is_harmless(slot) || may_have_an_heir(slot));
}

std::uint64_t place_of(std::uint64_t turn) {
  return turn >> kHeirBits;
}

bool is_shared(Slot& slot) {
  return SharedField(slot.shared).load() != 0;
}

std::string holder_text(const Slot& slot) {
  return fmt::format("{} (process {})", text_of(slot.holder), slot.pid);
}

// A slot of that file, locked and empty, and not in use yet.
Result<std::size_t> take_slot(const BarrierFile& file, const LunWriteBarrier::Holder& holder) {
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (!file.try_lock_shared(index)) {
      continue;
    }
    Slot& slot = file.slot(index);
    // What a process that has died has left may still be about. Its slot is not even locked for a
    // moment: others would take the dead one for a living one.
    if (concerns_others(slot) || !file.try_lock(index)) {
      file.unlock(index);
      continue;
    }
    SharedField(slot.in_use).store(0);
    SharedField(slot.use).store(static_cast<std::uint32_t>(HolderUse::runs));
    SharedField(slot.vm).store(holder.vm);
    SharedField(slot.shared).store(holder.shared ? 1 : 0);
    slot.pid = ::getpid();
    slot.domain = holder.domain;
    SharedField(slot.turn).store(0);
    SharedField(slot.known_writer).store(0);
    SharedField(slot.passed_on).store(0);
    SharedField(slot.unfenced_until_ns).store(0);
    SharedField(slot.died_at_ns).store(0);
    SharedField(slot.quiesce_time_ns).store(holder.quiesce_time.count());
    set_text(slot.holder, holder.name);
    const std::uint32_t used = std::min(slot.nexuses_used, kMaxPaths);
    for (std::uint32_t path = 0; path < used; ++path) {
      SharedField(file.nexus(index, path).in_use).store(0);
    }
    return index;
  }
  return fail(
      ErrorCode::exhausted,
      fmt::format("{} disks of this host use the LUN, which are as many as can at once", kSlots));
}

Result<void> have_nexuses(const BarrierFile& file, std::size_t index, std::uint32_t paths) {
  Slot& slot = file.slot(index);
  if (paths > slot.nexuses_used) {
    if (auto allocated = file.allocate_nexuses(index, paths); !allocated) {
      return allocated;
    }
    slot.nexuses_used = paths;
  }
  return {};
}

// To a slot that was taken. The error: without all the nexuses.
Result<void> copy_slot(const BarrierFile& from_file, std::size_t from_index,
                       const BarrierFile& to_file, std::size_t to_index) {
  Slot& from = from_file.slot(from_index);
  Slot& to = to_file.slot(to_index);
  const std::uint32_t used = std::min(from.nexuses_used, kMaxPaths);
  Result<void> nexuses = have_nexuses(to_file, to_index, used);
  for (std::uint32_t path = 0; nexuses && path < used; ++path) {
    to_file.nexus(to_index, path) = from_file.nexus(from_index, path);
  }
  const std::uint64_t turn = SharedField(from.turn).load();
  SharedField(to.shared).store(SharedField(from.shared).load());
  to.pid = from.pid;
  to.domain = from.domain;
  to.holder = from.holder;
  SharedField(to.use).store(SharedField(from.use).load());
  SharedField(to.vm).store(SharedField(from.vm).load());
  SharedField(to.suspended_at_ns).store(SharedField(from.suspended_at_ns).load());
  SharedField(to.known_writer).store(SharedField(from.known_writer).load());
  SharedField(to.passed_on).store(SharedField(from.passed_on).load());
  SharedField(to.turn).store(turn);
  SharedField(to.died_at_ns).store(SharedField(from.died_at_ns).load());
  SharedField(to.quiesce_time_ns).store(SharedField(from.quiesce_time_ns).load());
  SharedField(to.unfenced_until_ns).store(SharedField(from.unfenced_until_ns).load());
  SharedField(to.outstanding).store(SharedField(from.outstanding).load());
  SharedField(to.unfenced).store(SharedField(from.unfenced).load());
  SharedField(to.in_use).store(1);
  SharedField(to_file.header().last_place).raise(place_of(turn));
  SharedField(to_file.header().last_heir).raise(turn & kMaxHeir);
  return nexuses;
}

}  // namespace

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
  LunWriteBarrier barrier;
  barrier.folder_ = folder;
  barrier.key_ = key;
  barrier.names_ = names;
  barrier.holder_ = holder;
  barrier.file_ = std::move(found->file);
  barrier.slot_ = *slot;
  barrier.entered_at_ = now;
  // A disk that comes to another file at the same moment has another place, too: the two may turn
  // out to be at one LUN.
  SharedField(barrier.file_.header().last_place).raise(found->last_place);
  barrier.come_from(*found);
  barrier.look_for_removed();
  SharedField(barrier.own().in_use).store(1);
  barrier.come_after_all_others(now);
  barrier.inherit_place(now);
  return barrier;
}

// The names of the file are those of the LUN, too. Disks elsewhere are waited for from now on.
void LunWriteBarrier::come_from(BarrierFolder::Found& found) {
  names_.add(file_.names());
  file_.lock_names(slot_, names_);
  names_are_told_ = true;
  for (const BarrierFile& former : found.former) {
    bring_dead(former, file_, holder_, std::nullopt);
  }
  former_ = std::move(found.former);
  ambiguous_ = std::move(found.ambiguous);
}

bool LunWriteBarrier::learn(const LunNames& told, const std::string& target_name) {
  if (entered() && names_.add(told, target_name)) {
    names_are_told_ = false;
  }
  return !names_are_told_;
}

Result<bool> LunWriteBarrier::follow_file() {
  if (!entered() || (names_are_told_ && file_.is_current() && !file_.is_forwarded())) {
    return false;
  }
  const auto lock = BarrierFolder::lock(folder_);
  if (!lock) {
    return tl::unexpected(lock.error());
  }
  const bool stays = file_.is_current() && !file_.is_forwarded();
  const bool was_removed = !file_.is_current();
  auto found = lock->find(key_, names_, stays ? &file_ : nullptr);
  if (!found) {
    return tl::unexpected(found.error());
  }
  Result<void> moved;
  const bool moves = !found->file.is_same_file(file_);
  if (moves) {
    const auto slot = take_slot(found->file, holder_);
    if (!slot) {
      return tl::unexpected(slot.error());
    }
    moved = move_to(std::move(found->file), *slot);
  }
  const bool has_the_lun = had_the_lun_ && use_of(own()) == HolderUse::runs;
  if (moves && !has_the_lun) {
    look_for_removed();  // whoever has it has perhaps not come yet
  }
  come_from(*found);
  if (has_the_lun) {
    former_.clear();
    ambiguous_.clear();
  }
  if (!moved) {
    return tl::unexpected(moved.error());
  }
  return moves && !was_removed;
}

// The former file is left when the disk is seen in the new one, where it comes before those that
// have come there in the meantime, as their turns are later ones. The error: without all the
// nexuses.
Result<void> LunWriteBarrier::move_to(BarrierFile file, std::size_t to) {
  bring_dead(file_, file, holder_, slot_);
  Result<void> nexuses = copy_slot(file_, slot_, file, to);
  SharedField(file.header().writer).raise(SharedField(file_.header().writer).load());
  if (!file_.is_current()) {
    (void)SharedField(file.header().returned).add(1);
  }
  file.note_change();
  set_free(own());  // nobody there shall take it for a dead one's
  file_ = std::move(file);
  slot_ = to;
  seen_changes_ =
      SharedField(file_.header().changes).load() - 1;  // what it has seen is no matter here
  return nexuses;
}

// From a file where nobody comes to any more: those that have died there, and that nobody else has
// brought. They stay there for disks that have not come yet. but: the disk's own slot there.
void LunWriteBarrier::bring_dead(const BarrierFile& from, const BarrierFile& to,
                                 const Holder& holder, std::optional<std::size_t> but) {
  // Of its own: locks of one description do not exclude each other.
  const auto opened = BarrierFile::open_existing(to.path());
  if (!opened) {
    return;
  }
  const BarrierFile& file = *opened;
  for (std::size_t index = 0; index < kSlots; ++index) {
    Slot& dead = from.slot(index);
    if (index == but || !concerns_others(dead) || !from.try_lock_shared(index)) {
      continue;
    }
    from.unlock(index);  // nobody comes to this file any more
    bool there = false;
    for (std::size_t other = 0; other < kSlots; ++other) {
      Slot& slot = file.slot(other);
      there = there || (SharedField(slot.in_use).load() != 0 && slot.pid == dead.pid &&
                        SharedField(slot.turn).load() == SharedField(dead.turn).load());
    }
    if (there) {
      continue;
    }
    if (const auto taken = take_slot(file, holder)) {
      (void)copy_slot(from, index, file, *taken);
      file.unlock(*taken);
    }
  }
}

// This disk is seen by now, with a lower turn than it gets here. So of two that come at the same
// time, the later one sees the earlier one there, whatever it sees of its turn.
void LunWriteBarrier::come_after_all_others(TimePoint now) {
  const auto at_least = static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kHeirBits;
  SharedField(own().turn).store(SharedField(file_.header().last_place).next(at_least) << kHeirBits);
  file_.note_change();
}

void LunWriteBarrier::take_next_heirs_turn(std::uint64_t place, TimePoint now) {
  const std::uint64_t heir = SharedField(file_.header().last_heir).add(1) + 1;
  if (heir > kMaxHeir) {
    come_after_all_others(now);
    return;
  }
  SharedField(own().turn).store(place << kHeirBits | heir);
  file_.note_change();
}

bool LunWriteBarrier::is_heir_of(Slot& slot) const {
  const std::uint64_t own_turn = SharedField(own().turn).load();
  const std::uint64_t turn = SharedField(slot.turn).load();
  return place_of(turn) == place_of(own_turn) && turn < own_turn;
}

// The guest is moved from a disk where it is suspended to this one, which has come since.
void LunWriteBarrier::inherit_place(TimePoint now) {
  if (use_of(own()) != HolderUse::runs) {
    return;
  }
  // The first place of the guest's, and whoever has had that last.
  std::optional<std::size_t> from;
  std::uint64_t turn = 0;
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (!is_moved_from(index, now)) {
      continue;
    }
    const std::uint64_t other = SharedField(file_.slot(index).turn).load();
    if (!from || place_of(other) < place_of(turn) ||
        (place_of(other) == place_of(turn) && other > turn)) {
      from = index;
      turn = other;
    }
  }
  if (!from) {
    return;
  }
  take_next_heirs_turn(place_of(turn), now);
  // Where it has been resumed or has ended at the same time, others may not have seen that this one
  // comes before them.
  Slot& slot = file_.slot(*from);
  if (!may_have_an_heir(slot)) {
    come_after_all_others(now);
    return;
  }
  if (!is_shared(own())) {
    // What its guest knew there.
    SharedField(own().known_writer).store(SharedField(slot.known_writer).load());
  }
  if (is_harmless(slot) && file_.try_lock_shared(*from)) {
    set_free(slot);  // the place is taken
    file_.unlock(*from);
  }
}

// Whoever has no UUID is known by the domain, but for the source of a move, which has another one.
bool LunWriteBarrier::is_moved_from(std::size_t index, TimePoint now) const {
  Slot& slot = file_.slot(index);
  const bool known = slot.domain == own().domain || SharedField(own().vm).load() != 0;
  if (index == slot_ || SharedField(slot.in_use).load() == 0 || !may_have_an_heir(slot) ||
      is_passed_on(slot) || SharedField(slot.vm).load() != SharedField(own().vm).load() ||
      is_shared(slot) != is_shared(own()) ||
      place_of(SharedField(slot.turn).load()) >= place_of(SharedField(own().turn).load()) ||
      entered_at_ + kNoticeTime < time_of(SharedField(slot.suspended_at_ns).load())) {
    return false;
  }
  if (!file_.try_lock_shared(index)) {
    return known || use_of(slot) == HolderUse::suspended;
  }
  // Nobody else may be about to free the slot.
  constexpr Duration kMargin = std::chrono::seconds(1);
  const bool kept = known && is_place_kept(slot, note_death(slot, now), now + kMargin);
  file_.unlock(index);
  return kept;
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
  if (auto there = have_nexuses(file_, slot_, path + 1); !there) {
    return there;
  }
  Nexus& stored = file_.nexus(slot_, path);
  SharedField(stored.in_use).store(0);
  stored.isid = nexus.isid;
  stored.portal_group_known = nexus.login.portal_group ? 1 : 0;
  stored.portal_group = nexus.login.portal_group.value_or(0);
  stored.session_number = nexus.session_number;
  set_text(stored.initiator_name, nexus.initiator_name);
  set_text(stored.target_name, nexus.target_name);
  set_text(stored.portal, nexus.portal.to_string());
  set_text(stored.peer, nexus.login.portal.to_string());
  set_text(stored.interface_name, nexus.interface_binding.name);
  set_text(stored.source_address, nexus.interface_binding.address);
  set_text(stored.hardware_address, nexus.interface_binding.hardware_address);
  SharedField(stored.in_use).store(1);
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
      pass_on_former_places();
    }
  }
  tell_if_not_running();
}

void LunWriteBarrier::pass_on_former_places() const {
  for (std::size_t index = 0; index < kSlots; ++index) {
    if (Slot& slot = file_.slot(index);
        index != slot_ && SharedField(slot.in_use).load() != 0 && is_heir_of(slot)) {
      SharedField(slot.passed_on).store(1);
    }
  }
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

void LunWriteBarrier::set_use(HolderUse use, std::uint64_t vm, TimePoint now) {
  if (!entered() || overtaken_ || (use_of(own()) == use && SharedField(own().vm).load() == vm)) {
    return;
  }
  const bool resumed = use == HolderUse::runs && use_of(own()) != HolderUse::runs;
  if (resumed) {
    (void)follow_file();  // where a disk that has taken the guest over may be
  }
  if (use == HolderUse::suspended && use_of(own()) != HolderUse::suspended) {
    SharedField(own().suspended_at_ns).store(now.time_since_epoch().count());
    note_known_writer();
  }
  SharedField(own().vm).store(vm);
  SharedField(own().use).store(static_cast<std::uint32_t>(use));
  if (resumed && has_an_heir()) {
    take_next_heirs_turn(place_of(SharedField(own().turn).load()), now);
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

// Whether a disk has come that may have had the LUN since this one's guest was suspended.
bool LunWriteBarrier::has_an_heir() const {
  const std::uint64_t turn = SharedField(own().turn).load();
  for (std::size_t index = 0; index < kSlots; ++index) {
    Slot& slot = file_.slot(index);
    const std::uint64_t other = SharedField(slot.turn).load();
    if (SharedField(slot.in_use).load() != 0 && place_of(other) == place_of(turn) && other > turn) {
      return true;
    }
  }
  return false;
}

void LunWriteBarrier::leave() {
  if (entered()) {
    if (is_harmless(own())) {
      set_free(own());
    }
    file_.note_change();
    file_ = BarrierFile();  // and with it goes the lock
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
}

LunWriteBarrier::Others LunWriteBarrier::look(TimePoint now) {
  if (!entered()) {
    return {};
  }
  inherit_place(now);
  // Whoever comes to this file from another one is seen there, or here afterwards.
  const bool some_are_removed = others_have_removed_files(now);
  const std::string elsewhere = holder_elsewhere(now);
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
  if (some_are_removed) {
    others.late_writes_of = fmt::format("a disk whose file in {} was removed", folder_);
  }
  if (use_of(own()) == HolderUse::runs) {
    had_the_lun_ = others.may_write();
    const std::uint64_t known_writer = SharedField(own().known_writer).load();
    if (had_the_lun_ && known_writer != 0 &&
        SharedField(file_.header().writer).load() + 1 != known_writer) {
      set_use(HolderUse::ended, SharedField(own().vm).load(), now);
      overtaken_ = true;
    }
    if (had_the_lun_) {
      SharedField(own().known_writer).store(0);
    }
  }
  others.overtaken = overtaken_;
  return others;
}

// And has the LUN to itself.
bool LunWriteBarrier::comes_first(Slot& slot) const {
  return SharedField(slot.turn).load() < SharedField(own().turn).load() &&
         (!is_shared(slot) || !is_shared(own()));
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
      } else if (SharedField(slot.in_use).load() != 0 && is_heir_of(slot)) {
        set_free(slot);  // the place that was kept is this one's
      } else if (SharedField(slot.in_use).load() != 0 && comes_first(slot)) {
        others.in_use_by = holder_text(slot);  // its place is kept
      }
      file_.unlock(index);
    } else if (const HolderUse use = use_of(slot);
               use == HolderUse::ended || (use == HolderUse::suspended && is_heir_of(slot))) {
      if (!is_harmless(slot)) {
        others.late_writes_of = holder_text(slot);
      }
    } else if (comes_first(slot)) {
      others.in_use_by = holder_text(slot);
    } else if (!is_harmless(slot) && !(is_shared(slot) && is_shared(own()))) {
      others.late_writes_of = holder_text(slot);  // it had the LUN before the two saw each other
    }
  }
  return others;
}

// A disk in another file of the LUN, or of one that may be it. Empty: none, and nobody comes there.
// The dead of the LUN's other files have been brought to this one.
std::string LunWriteBarrier::holder_elsewhere(TimePoint now) {
  const std::string in_former = drop_files_without_holders(former_, std::nullopt);
  return in_former.empty() ? drop_files_without_holders(ambiguous_, now) : in_former;
}

// now: also what the dead have left there counts. A holder in the first file that stays.
std::string LunWriteBarrier::drop_files_without_holders(std::vector<BarrierFile>& files,
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

void LunWriteBarrier::look_for_removed() {
  looks_for_removed_ = true;
  removed_ = 0;
  returned_before_ = SharedField(file_.header().returned).load();
  removed_until_ = {};
}

// Until there are none: those that come later come to this disk's file.
bool LunWriteBarrier::others_have_removed_files(TimePoint now) {
  if (!looks_for_removed_) {
    return false;
  }
  if (const std::uint64_t there = file_.holders_of_removed_files(names_); there != 0) {
    removed_ = std::max(removed_, there);
    removed_until_ = now + holder_.quiesce_time;
    return true;
  }
  // What is gone has come, or has died, and nobody knows with what under way.
  looks_for_removed_ = SharedField(file_.header().returned).load() - returned_before_ < removed_ &&
                       now < removed_until_;
  return looks_for_removed_;
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
