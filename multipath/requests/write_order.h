// WriteOrder: which requests wait so that no write of a disk is lost or reordered. Owned by
// RequestQueue. Reactor thread; must_wait() and withholds_answer() are on the way of each request.
//
// Why no write is lost or reordered. Only a write that was sent and never answered can be executed
// late, and only until its nexus is fenced: by the session's next login (same ISID: reinstatement;
// not where a redirect led it elsewhere, login_nexus.h), by a fence session through a sibling
// portal (where portal_group_fences or a trial vouches for that), by a command of the logical unit
// (lun_fence.h), or by quiesce_time. Until then its range is unfenced:
//  1. The write itself may go to another path at once and be answered: executed late, it writes
//     what is there already, as long as nothing newer has been written there.
//  2. So nothing newer may be: every write of another request that overlaps an unfenced range waits
//     for the fence, whether it is new or a retry.
//  3. A write that overlaps and was already under way on a path when the first was lost cannot be
//     held back. Then the lost one waits: until that write has ended (its retry is then the newest
//     data, and rule 1 holds again) or until it is fenced itself.
//  4. Among writes that are unanswered at the same time blkif promises no order, so a request that
//     waits anywhere here (for a path, for its retry, for a fence) needs no place in a line.
//  5. Another disk that writes to the LUN, of this host or another one, does not wait for these
//     fences, but for an answer: a cluster hands a block on when its writer has that. So where
//     others write there (MultipathOptions::shared), a write is answered, whatever its result, when
//     none of its lost copies can be executed any more; if the disk is closed before, as aborted.
// A disk that comes after another one at the same LUN on this host (attached again, its guest
// destroyed and started anew, or moved here from another guest number) is not ready until the
// other one is not in use and nothing of it can land any more: not only would its writes be
// overtaken, what its guest reads (and decides by: journals, file system checks) would change under
// it. One that is ready already, beside or after another one, holds reads and writes meanwhile
// (lun_write_barrier.h).
// A write that was not sent, or that the target answered with an error, leaves nothing behind.
// What answers at a path may come to be another LUN than the disk's: an operator maps one there. The
// target says that something has changed (UNIT ATTENTION, an event) before it executes anything for
// the new one. From then on nothing is sent there, commands that wait for the target's window
// included, and nothing that is answered there is told to the guest until the LUN has said again
// who it is. If it is another one, or does not say, the request goes elsewhere as if it had not been
// sent: a late answer is one to a command that is over.
// A request that is larger than what the LUN takes at once goes in pieces, one after the other.
// Reads and flushes are retried anywhere at any time: SYNCHRONIZE CACHE reaches the whole logical
// unit, and every write acknowledged before it had been executed before it is sent.
#pragma once

#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/request.h"

namespace iscsi_blkback {

class WriteOrder {
 public:
  // The others outlive it.
  WriteOrder(const PathSet& paths, const WriteFence& fence, LunTurn& turn)
      : paths_(paths), fence_(fence), turn_(turn) {}

  // The request is not to be sent now: until a fence, for another disk, or until an overlapping
  // write at a path has ended, which gets Request::has_waiter.
  [[nodiscard]] bool must_wait(const Request& request) {
    if (turn_.must_wait() && !request.is_flush()) [[unlikely]] {
      return holds_overlapping_writes_;
    }
    return !fence_.empty() && holds_overlapping_writes_ && request.is_write() &&
           must_wait_for_overlap(request);
  }
  // Rule 5: the request has ended, and is not to be answered before its lost copies are fenced.
  [[nodiscard]] bool withholds_answer(const Request& request) const {
    return !fence_.empty() && request.is_write() &&
           fence_.withholds(request.first_sector(), request.end_sector(), request.serial);
  }

  // Switches rules 2 and 3 off, so that the simulation can prove that it notices.
  void disable_hold_of_overlapping_writes() { holds_overlapping_writes_ = false; }

 private:
  [[nodiscard]] bool must_wait_for_overlap(const Request& request) const;

  const PathSet& paths_;
  const WriteFence& fence_;
  LunTurn& turn_;
  bool holds_overlapping_writes_ = true;
};

}  // namespace iscsi_blkback
