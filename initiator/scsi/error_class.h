// ErrorClass: what a target's answer to a command means, or its absence. The one function that
// judges a status, for guest I/O and for questions of our own; what follows from it is its user's
// policy (multipath/path/error_policy.h). Pure functions.
//
// Sources: SAM-5 5.3 (status), SPC-4 4.5 (sense), RFC 7143 11.4.3 (iSCSI response).
#pragma once

#include <cstdint>

#include "initiator/scsi/scsi_task.h"

namespace iscsi_blkback {

// One row of multipath/path/error_policy.h each.
enum class ErrorClass : std::uint8_t {
  success,
  connection_lost,  // sent, no answer, the connection is gone
  not_sent,
  command_stuck,   // not answered in command_timeout, and ended by ABORT TASK or a reset of ours
  target_failure,  // an iSCSI response code other than 0
  short_transfer,  // good status without all of the data, or with more than there was to transfer
  busy,
  task_set_full,
  reservation_conflict,
  task_aborted,
  aca_active,
  unknown_status,
  unusable_sense,         // CHECK CONDITION with no or malformed sense data
  deferred_error,         // sense data about an earlier command; this one was not executed
  becoming_ready,         // 02/04/01 and the like: wait
  format_in_progress,     // 02/04/04
  access_transition,      // ALUA: 02/04/0A, 06/04/0A
  access_state,           // ALUA: standby, unavailable, offline; RDAC: another controller owns it
  access_changed,         // unit attention: ALUA states or priorities have changed
  communication_failure,  // 02/08/xx: with the LUN behind the target; LIO's word for any error of
                          // it
  not_ready,              // every other 02
  medium_unrecovered,     // 03/11, 03/13, 03/14
  medium_other,           // every other 03, and 04 that says that a write has failed
  hardware_error,
  command_unsupported,  // 05/20/00
  out_of_range,         // 05/21/00
  lun_missing,          // 05/25/00
  illegal_request,      // every other 05
  unit_attention,
  space_attention,     // 06/38/07: a thinly provisioned LUN has come to its soft threshold
  identity_attention,  // the LUN behind the path may be another one, or have changed
  write_protected,     // 07/27/00 to 02
  no_space,            // 07/27/07
  data_protect,        // every other 07
  duration_limit,      // 0B/2E/01 to 03
  protection_error,    // 0B/10/xx: the check of a protection field failed
  aborted_command,
  refused,  // the remaining sense keys
};

// What counts as all of the data: the length that was asked for, or, of an answer whose length the
// target knows better (INQUIRY, MODE SENSE, READ CAPACITY), what it sent.
enum class Transfer : std::uint8_t { whole, at_most };

[[nodiscard]] ErrorClass classify(const ScsiTask& task, Transfer transfer = Transfer::whole);
[[nodiscard]] const char* to_string(ErrorClass error);

// The error says that data is gone which the target had acknowledged: of a write that had ended
// before.
[[nodiscard]] bool tells_loss(const SenseData& sense);
// Of a SYNCHRONIZE CACHE: what was in the cache has not come to the medium, and may be forgotten by
// now. A target with a page cache says so once; the next one succeeds (fsync(2), errseq).
[[nodiscard]] bool tells_loss_at_flush(ErrorClass error);
// Of a SYNCHRONIZE CACHE: the logical unit does not take it. What is in a volatile cache stays
// there; without such a cache there is nothing to be done.
[[nodiscard]] bool refuses_flush(ErrorClass error);
// ILLEGAL REQUEST, in words that say that the command will never be taken in this form: 20/00,
// 21/00 and 24/xx. Other words of this key may be said of a moment.
[[nodiscard]] bool refuses_form(const ScsiTask& task);
// The same of a read or a write, where 21/00 speaks of its range.
[[nodiscard]] bool refuses_form_of_transfer(const ScsiTask& task);
// The same of an UNMAP or WRITE SAME, where 26/xx speaks of the parameter list: too many blocks.
[[nodiscard]] bool refuses_discard(const ScsiTask& task);

}  // namespace iscsi_blkback
