// ScsiTask: one SCSI command on its way through a session, owned by whoever submits it (a pool slot
// of the multipath device, a member of a probe), and its outcome. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"
#include "initiator/scsi/sense.h"

namespace iscsi_blkback {

enum class DataDirection : std::uint8_t { none, in, out };

// SAM-5 status codes.
enum class ScsiStatus : std::uint8_t {
  good = 0x00,
  check_condition = 0x02,
  condition_met = 0x04,
  busy = 0x08,
  reservation_conflict = 0x18,
  task_set_full = 0x28,
  aca_active = 0x30,
  task_aborted = 0x40,
};

enum class TaskOutcome : std::uint8_t {
  completed,       // the target answered with response code 0: status, sense and residual are valid
  target_failure,  // the target answered with another iSCSI response code (RFC 7143 11.4.3)
  aborted,   // a task management function ended it, and the target has confirmed that: it will not
             // be executed any further, but some of it may have been
  not_sent,  // the connection went before a byte of the command was given to it
  connection_lost,  // sent, wholly or in part, and the connection is gone for good; the target may
                    // have executed the command, or may still do so until the nexus is fenced
};

// The list hook is the session's between submit and on_complete.
struct ScsiTask : ListHook<ScsiTask> {
  // Set by the submitter, unchanged until completion.
  std::array<std::uint8_t, 16> cdb{};
  std::uint64_t lun = 0;  // the 8-byte LUN of SAM-5 as a big-endian number
  DataDirection direction = DataDirection::none;
  std::byte* data = nullptr;            // data_length_bytes of it; not touched after completion
  std::uint32_t data_length_bytes = 0;  // the expected data transfer length
  void (*on_complete)(ScsiTask& task) noexcept = nullptr;
  void* owner = nullptr;

  // How often this command has been given up with nothing said about it: its connection had gone
  // silent, or it was stuck. The session counts, is more patient each time, and begins anew when
  // the target has answered; whoever uses the task for something else sets them to 0.
  std::uint8_t silences = 0;
  std::uint8_t stuck = 0;
  static void count_up(std::uint8_t& times) {
    if (times != 0xff) {
      ++times;
    }
  }

  // Set by the session before on_complete.
  TaskOutcome outcome = TaskOutcome::completed;
  ScsiStatus status = ScsiStatus::good;
  std::uint8_t response_code = 0;       // the iSCSI response code
  std::uint32_t transferred_bytes = 0;  // data_length_bytes less the residual, and for reads never
                                        // more than what really arrived
  bool overflow = false;                // the target had more than data_length_bytes to transfer,
                                        // or a residual of another kind: it understands the
                                        // command in another way
  SenseData sense;                      // valid with check_condition

  // Status GOOD, response code 0, the full length transferred: the only thing that is success.
  [[nodiscard]] bool succeeded() const {
    return outcome == TaskOutcome::completed && status == ScsiStatus::good && !overflow &&
           transferred_bytes == data_length_bytes;
  }
  // The target has something to tell of the LUN; the command was not executed.
  [[nodiscard]] bool ended_with_attention() const {
    return outcome == TaskOutcome::completed && status == ScsiStatus::check_condition &&
           sense.valid && sense.key == SenseKey::unit_attention;
  }
};

}  // namespace iscsi_blkback
