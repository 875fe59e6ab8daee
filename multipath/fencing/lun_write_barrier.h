// LunWriteBarrier: keeps the writes of this host's disks that lead to one LUN in order, when one
// disk follows another one there: detached from one guest and attached to another, a guest that is
// destroyed and started anew, moved within the host, or whose process has died. Owned by
// LunTurn, one for each disk that may write. One thread at a time.
//
// Each disk tells the others, in a slot of the LUN's BarrierFile: at which of its paths writes are
// outstanding, at which some were lost that the target may still execute (unfenced), until when,
// and whether its guest runs, is suspended or has ended (or the disk is being closed). Others do
// this:
//  - A disk whose guest runs has the LUN to itself: one that comes later is not ready before that
//    has changed, unless both are `shared`. Only so nothing can be overtaken that a process which
//    does not run just now (stopped, or slow to notice the end of its guest) sends later.
//  - A disk whose guest is suspended has the LUN as before, but for the disk of the same guest that
//    it is being moved to within the host, which comes after the suspend and takes its place in
//    the line. Everybody else waits until it has ended: it may go on where it is. Where the disk
//    ends while the guest goes on, or may do so (it was suspended then, or the process has died
//    while it was; or its disk is opened anew, or its process is asked to end), its place is kept
//    for the guest's next disk, for quiesce_time. A place that has been taken, by a disk that has
//    written since, is taken by nobody else: the guest goes on from there.
//  - A disk whose guest has ended still has writes outstanding or unfenced for a while: others hold
//    their requests back as long as that says so: writes, which would be overtaken, and reads, by
//    which their guests decide. The bound is the holder's: its commands are answered, aborted or
//    lost within their time-outs, and what is lost is fenced or harmless after quiesce_time.
//  - A disk whose process has died says nothing any more. What its slot says was outstanding or
//    unfenced may be executed until quiesce_time after its death, or until the nexus that carried
//    it has been reinstated: the slot says how to (PredecessorFence does it).
// A guest that is resumed where it was, although a disk was there to take it over, comes after that
// one. Where another disk has written meanwhile, what the resumed guest knows of its disk is no
// longer true, and what it had asked for before would overtake newer data: it is never served again
// (Others::overtaken).
//
// Where the file is removed while disks are in use (an operator, a service that cleans folders),
// each of them goes to the one that is there now (BarrierFollow), with its turn, and whoever comes
// meanwhile waits for that: the kernel's list of locks tells of them.
//
// All disks of a LUN have one file, by whichever of its names they know it (barrier_names.h). Where
// that turns out later, because two names that had nothing to do with each other become those of
// one LUN, both files were in use: all disks of the one come to the other then, those that have
// written included, and stay in the order in which they came.
//
// What is told costs a store where something changes, and asking whether anything has changed one
// load. File I/O is what enter(), search_removed() and BarrierFollow::run() do: on another thread
// than a reactor's, which has the object meanwhile. All else is on a reactor's thread: what is
// mapped; and, but not where a request asks (changed()) or something is told, locks on bytes of the
// file for each slot of another disk (fcntl(2), F_OFD_SETLK: without a wait, and none where the disk
// is alone) and for each name that is new, and the closing of files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "initiator/scsi/lun_names.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_folder.h"
#include "multipath/fencing/barrier_follow.h"
#include "multipath/fencing/barrier_names.h"
#include "multipath/fencing/barrier_nexus.h"
#include "multipath/fencing/barrier_slot.h"
#include "multipath/fencing/holders_elsewhere.h"
#include "multipath/fencing/place_in_line.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

// A path of a disk whose process has died.
struct PredecessorPath {
  std::size_t slot = 0;
  std::uint64_t turn = 0;  // of the disk: another one in its slot has another one
  std::uint32_t path = 0;

  bool operator==(const PredecessorPath&) const = default;
};

class LunWriteBarrier {
 public:
  using Holder = BarrierHolder;

  // A disk whose process has died.
  struct DeadHolder {
    std::size_t slot = 0;
    std::uint64_t turn = 0;
    PathMask paths = 0;  // whose writes may still be executed
    TimePoint until{};   // then they are harmless
  };
  // What the others say, as it concerns this disk.
  struct Others {
    std::string in_use_by;         // a disk that has the LUN to itself; empty: none
    std::string late_writes_of;    // one whose guest has ended; empty: none
    std::vector<DeadHolder> dead;  // with something that is not harmless
    // While this disk's guest was suspended, a disk has written that it does not share the LUN
    // with. Told when nobody else is there any more, and for good: the disk counts as ended.
    bool overtaken = false;

    [[nodiscard]] bool may_write() const {
      return in_use_by.empty() && late_writes_of.empty() && dead.empty();
    }
  };

  // The folder is made where it does not exist. key: of lun_barrier_key(), for a LUN that is known
  // by none of `names` yet. now: disks that come to different files of the LUN are in order by it.
  // The error is one sentence: the file cannot be used, all its slots are taken, or somebody else
  // has the folder just now.
  [[nodiscard]] static Result<LunWriteBarrier> enter(const std::string& folder,
                                                     const std::string& key, const Holder& holder,
                                                     TimePoint now = {},
                                                     const BarrierNames& names = {});

  // Without a file: nobody is told, and there are no others.
  LunWriteBarrier() = default;
  LunWriteBarrier(LunWriteBarrier&&) noexcept = default;
  LunWriteBarrier& operator=(LunWriteBarrier&&) noexcept = default;
  // Without leave(): for others, as if the process had died.
  ~LunWriteBarrier() = default;

  [[nodiscard]] bool entered() const { return file_.valid(); }
  // A path tells these names of the LUN, by that target. True: some are not told to others yet,
  // which the next BarrierFollow does.
  [[nodiscard]] bool learn(const LunNames& told, const std::string& target_name);
  [[nodiscard]] bool learn(const BarrierNames& told);
  // From time to time the disk follows its file; nothing happens as long as that is where it was,
  // and has the LUN's names. In three steps, of which the middle one, BarrierFollow::run(), needs
  // neither this object nor its thread; a search for disks with removed files goes with it. One at
  // a time.
  [[nodiscard]] BarrierFollow begin_follow();
  // The error is one sentence: the disk is not seen by those that come now, unless a later one
  // succeeds. True: other disks at the LUN, which knew it by another name, had not seen this one, nor
  // this one them.
  [[nodiscard]] Result<bool> end_follow(BarrierFollow follow, TimePoint now);
  // The disk has moved to another file where no such search has been made yet: the next
  // BarrierFollow is due at once.
  [[nodiscard]] bool must_search() const { return entered() && removed_.must_search(); }

  // What this disk tells. Before the first write of a login is sent at the path; the error (there
  // was no space when the disk came to the file) means that only time fences what the path may leave
  // behind.
  Result<void> set_nexus(std::uint32_t path, const BarrierNexus& nexus);
  // Nothing of the path is outstanding or unfenced any more.
  void forget_nexus(std::uint32_t path);
  void set_outstanding(std::uint32_t path, bool writes);
  // paths: all of them, 0: none. anywhere: also where no path is known any more. until: of the
  // last.
  void set_unfenced(PathMask paths, bool anywhere, TimePoint until);
  // Where the guest is resumed, the file is followed before: see resumes().
  void tell_use(HolderUse use, std::uint64_t vm, TimePoint now);
  [[nodiscard]] bool resumes(HolderUse use) const;
  // Nothing is sent any more. What may still be executed is for others what a dead disk has left.
  void leave();
  // The same; the place is kept for the guest's next disk.
  void leave_place(TimePoint now);

  // Whether something that concerns others has changed since the last look().
  [[nodiscard]] bool changed() const {
    return entered() && SharedField(file_.header().changes).load() != seen_changes_;
  }
  // By what is mapped, and by what the last search for disks with removed files has found.
  [[nodiscard]] Others look(TimePoint now);
  void search_removed(TimePoint now);
  // The nexus of a dead holder's path; nullopt: what its slot says is no nexus, or the slot is
  // another disk's by now.
  [[nodiscard]] std::optional<BarrierNexus> nexus_of(const PredecessorPath& predecessor) const;
  // It has been reinstated since the holder's death: nothing that was sent there can be executed
  // any more. Nothing happens where the slot is another disk's by now.
  void reinstated(const PredecessorPath& predecessor);

 private:
  [[nodiscard]] barrier_layout::Slot& own() const { return file_.slot(slot_); }
  [[nodiscard]] PlaceInLine place() const { return {file_, slot_, entered_at_}; }
  [[nodiscard]] Result<void> move_to(BarrierFollow::Found& found);
  void come_from(BarrierFolder::Found& found, const BarrierNames& told);
  [[nodiscard]] Others look_at_slots(TimePoint now);
  [[nodiscard]] std::optional<DeadHolder> look_at_dead(std::size_t slot, TimePoint now) const;
  void note_known_writer();
  void tell_if_not_running();
  // Keeps the slot from being taken, until it is unlocked. False: it is another disk's.
  [[nodiscard]] bool hold_dead(const PredecessorPath& predecessor) const;

  std::string folder_;
  std::string key_;
  BarrierNames names_;
  bool names_are_told_ = true;  // the file has them
  Holder holder_;
  BarrierFile file_;
  BarrierFile view_;  // of the same file, by another description; a BarrierFollow has it meanwhile
  std::size_t slot_ = 0;
  std::uint64_t seen_changes_ = 0;
  TimePoint entered_at_{};
  bool had_the_lun_ = false;  // while its guest ran, at the last look
  bool overtaken_ = false;
  RemovedHolders removed_;
  FormerFiles former_;
};

}  // namespace iscsi_blkback
