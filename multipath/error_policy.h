// Error policy: the one table that says what becomes of a request whose command did not succeed.
// Two steps: classify() reads the target's answer, rule_for() is the table. Pure functions.
//
// Sources: SAM-5 5.3 (status), SPC-4 4.5 (sense), RFC 7143 11.4.3 (iSCSI response); the actions are
// those of Linux (scsi_error.c, scsi_dh_alua.c, blk_path_error) except where noted at the row.
#pragma once

#include <cstdint>

#include "base/block_device.h"
#include "base/clock.h"
#include "initiator/scsi_task.h"

namespace iscsi_blkback {

// What the target's answer, or its absence, means. One row of the table each.
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
  unusable_sense,      // CHECK CONDITION with no or malformed sense data, or NO SENSE
  deferred_error,      // sense data about an earlier command; this one was not executed
  becoming_ready,      // 02/04/01 and the like: wait
  format_in_progress,  // 02/04/04
  access_transition,   // ALUA: 02/04/0A, 06/04/0A
  access_state,        // ALUA: standby, unavailable, offline; RDAC: another controller owns it
  access_changed,      // unit attention: ALUA states or priorities have changed
  not_ready,           // every other 02
  medium_unrecovered,  // 03/11, 03/13, 03/14
  medium_other,
  hardware_error,
  command_unsupported,  // 05/20/00
  out_of_range,         // 05/21/00
  lun_missing,          // 05/25/00
  illegal_request,      // every other 05
  unit_attention,
  space_attention,     // 06/38/07: a thinly provisioned LUN has come to its soft threshold
  identity_attention,  // the LUN behind the path may be another one, or of another size
  write_protected,     // 07/27/00 to 02
  no_space,            // 07/27/07
  data_protect,        // every other 07
  duration_limit,      // 0B/2E/01 to 03
  aborted_command,
  refused,  // the remaining sense keys
};

enum class PathVerdict : std::uint8_t {
  keep,
  fail,    // down until the checker or a new login finds it good
  verify,  // no guest I/O until its identity has been read again
};

enum class RetryDelay : std::uint8_t {
  none,
  brief,      // 10 ms, doubling up to 1 s, with jitter
  attention,  // none for the first few, then brief: a storm of unit attentions
  pause,      // 0.5 to 1 s; none for the first time when another path is there
};

struct ErrorRule {
  PathVerdict path = PathVerdict::keep;
  // So often on the same path, then so often preferably on another; when both are used up, answer.
  // An answer of no_path is none yet: the path fails, and the request waits for one that works.
  std::uint16_t retries_here = 0;
  std::uint16_t retries_elsewhere = 0;
  RetryDelay delay = RetryDelay::none;
  IoStatus answer = IoStatus::target_error;
};

// For errors that say something of the path and nothing of the request: it waits for a path.
inline constexpr std::uint16_t kUnlimitedRetries = 0xffff;

[[nodiscard]] ErrorClass classify(const ScsiTask& task);
[[nodiscard]] ErrorRule rule_for(ErrorClass error);
// How well the path serves the LUN is to be asked again.
[[nodiscard]] bool concerns_access(ErrorClass error);
// It may be the path that garbles, delays or loses commands, though it is up.
[[nodiscard]] bool concerns_path(ErrorClass error);
[[nodiscard]] const char* to_string(ErrorClass error);

// Where a request stands with its retries.
class RetryState {
 public:
  enum class Step : std::uint8_t { answer, here, elsewhere };

  // Counts the error and says what to do next. Another class than the last one starts a new count,
  // so that a request that had to wait for a busy target is not out of retries for what follows;
  // kMaxRetries bounds the whole.
  [[nodiscard]] Step next(ErrorClass error, const ErrorRule& rule);
  // The error counted last was the first of its class in a row.
  [[nodiscard]] bool first() const { return count_ == 1; }
  // How long to wait before the next try. random: for the jitter.
  [[nodiscard]] Duration delay(RetryDelay kind, std::uint64_t random) const;

  static constexpr std::uint16_t kMaxRetries = 1000;

 private:
  ErrorClass last_ = ErrorClass::success;
  std::uint16_t count_ = 0;  // of the last class in a row
  std::uint16_t bounded_total_ = 0;
};

}  // namespace iscsi_blkback
