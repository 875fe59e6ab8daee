// TaskManagement: one task management function (RFC 7143 11.5) on its way through a session, owned
// by whoever submits it, and its outcome. Reactor thread.
#pragma once

#include <cstdint>

#include "base/intrusive_list.h"
#include "initiator/pdu/pdu.h"
#include "initiator/scsi/scsi_task.h"

namespace iscsi_blkback {

enum class FunctionOutcome : std::uint8_t {
  complete,         // done: what it aborts will not be executed any further
  no_such_task,     // the target knows the task to abort no more; its answer, if any, came before
  no_such_lun,      // the target knows no such LUN
  unsupported,      // the target does not have the function
  refused,          // the target does not want to (authorization, or without a reason)
  not_sent,         // the session was not logged in
  connection_lost,  // no answer, and the connection is gone
};

[[nodiscard]] const char* to_string(FunctionOutcome outcome);
[[nodiscard]] const char* to_string(TaskFunction function);

// The list hook is the session's between submit() and on_complete.
struct TaskManagement : ListHook<TaskManagement> {
  TaskFunction function = TaskFunction::abort_task;
  std::uint64_t lun = 0;           // as in ScsiTask; nothing to target resets
  const ScsiTask* task = nullptr;  // abort_task: submitted to the same session; only looked at in
                                   // submit(), it may complete before the function does
  void (*on_complete)(TaskManagement& function) noexcept = nullptr;
  void* owner = nullptr;
  // That it is not answered is no reason to drop the connection: it waits for as long as that
  // lives.
  bool no_deadline = false;

  FunctionOutcome outcome = FunctionOutcome::not_sent;  // set by the session
};

}  // namespace iscsi_blkback
