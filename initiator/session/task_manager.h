// TaskManager: the task management functions of a session at the target, its submitters' and its
// own. Its own are the ladder for commands that are stuck on a live connection: ABORT TASK; where
// the target refuses or does not answer within abort_timeout, LOGICAL UNIT RESET if the disks of
// the LUN allow it (Session::may_reset); where that fails too, or the target says that there is no
// such task and does not answer it, the connection is to be dropped, and what was at the target is
// its submitter's to retry and to fence. Part of a Session; reactor thread.
//
// An error of a call here is the reason why the connection has to go, as text that goes behind the
// target's name.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "base/result.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/transmit_batch.h"
#include "initiator/session/command_watchdog.h"
#include "initiator/session/session_numbers.h"
#include "initiator/session/session_tags.h"
#include "initiator/session/task_management.h"
#include "initiator/session/task_table.h"

namespace iscsi_blkback {

class TaskManager {
 public:
  class Owner {
   public:
    // The target has confirmed that the task has ended; it completes as it is.
    virtual void end_task(TaskSlot& slot) noexcept = 0;
    [[nodiscard]] virtual bool may_reset(std::uint64_t lun) noexcept = 0;
    // A command is stuck; text goes behind the target's name and a colon.
    virtual void warn(const std::string& text) noexcept = 0;
    // A function has not been answered in its time: as an error of a call here.
    virtual void give_up(const Error& why) noexcept = 0;

   protected:
    ~Owner() = default;
  };
  // What is referred to outlives it. flush: something is to be sent. events: complete_unsent() is
  // to be called.
  TaskManager(Owner& owner, Reactor& reactor, const SessionOptions& options, TaskTable& table,
              const SessionNumbers& numbers, const CommandWatchdog& watchdog, Deferred& flush,
              Deferred& events);

  void start(TaskManagement& function);
  // It ends without being sent, later in this turn.
  void finish_unsent(TaskManagement& function, FunctionOutcome outcome);
  void complete_unsent();
  [[nodiscard]] bool has_unsent() const { return !unsent_.empty(); }
  // See Session::abandon().
  void abandon(TaskManagement& function);
  // Number of functions that are sent, to be sent or waited for.
  [[nodiscard]] std::uint32_t used() const { return used_; }
  // One is under way that ends sooner or later, at worst with the connection.
  [[nodiscard]] bool one_ends() const;

  // Puts those that are to be sent into the batch.
  void stage(TransmitBatch& batch) {
    if (used_ != 0) [[unlikely]] {
      stage_queued(batch);
    }
  }

  // Whether the tag names a function that is at the target, with somebody who waits for it; an
  // answer to one that nobody waits for is expected as well.
  [[nodiscard]] bool is_sent(std::uint32_t tag) const;
  [[nodiscard]] bool expects_answer(std::uint32_t tag) const;
  // Of one that is_sent() or expects_answer().
  [[nodiscard]] Result<void> answered(std::uint32_t tag, FunctionOutcome outcome);
  // The target had no room for it; it is sent again after a while.
  void defer(std::uint32_t tag);

  // A command has not been answered in its time.
  [[nodiscard]] Result<void> abort_stuck(const TaskSlot& slot);
  [[nodiscard]] std::uint64_t stuck_commands() const { return stuck_commands_; }

  // None is waited for any more.
  void stop_waiting() { timer_.stop(); }
  // The connection is gone: all of them complete.
  void connection_lost();

 private:
  struct Function {
    enum class State : std::uint8_t {
      free,
      queued,
      sent,
      deferred,   // the target had no room for it; to be sent again
      answered,   // no_such_task, while we still wait for the task's own answer
      abandoned,  // nobody waits for it, perhaps because the task's own answer has come
    };
    State state = State::free;
    std::uint16_t generation = 0;
    TaskFunction function{};
    std::uint64_t lun = 0;
    std::uint32_t referenced_task_tag = kReservedTag;
    std::uint32_t ref_cmd_sn = 0;
    std::uint32_t cmd_sn = 0;           // commands before it are those that it can end
    TimePoint deadline{};               // max(): none
    TaskManagement* request = nullptr;  // null: the session's own, for a stuck command

    // It ends sooner or later, at worst with the connection.
    [[nodiscard]] bool ends() const {
      return state != State::free && state != State::abandoned && deadline != TimePoint::max();
    }
  };
  using State = Function::State;

  void start_waiting();
  [[nodiscard]] Function* free_slot();
  void begin(Function& slot, TaskFunction function, std::uint64_t lun);
  [[nodiscard]] Duration timeout_of(TaskFunction function) const;
  void stage_queued(TransmitBatch& batch);
  [[nodiscard]] std::uint32_t tag_of(const Function& slot) const;
  [[nodiscard]] const Function* find(std::uint32_t tag) const;
  [[nodiscard]] Function* find(std::uint32_t tag) {
    return const_cast<Function*>(static_cast<const TaskManager*>(this)->find(tag));
  }
  void release(Function& slot);
  void end_tasks(const Function& slot);
  [[nodiscard]] Result<void> escalate(std::uint64_t lun);
  void on_timer();
  // What is sent again, and what has not been answered in its time.
  [[nodiscard]] Result<void> look_at_deadlines(TimePoint now);
  [[nodiscard]] Duration period() const;

  Owner& owner_;
  Reactor& reactor_;
  const SessionOptions& options_;
  TaskTable& table_;
  const SessionNumbers& numbers_;
  const CommandWatchdog& watchdog_;
  Deferred& flush_;
  Deferred& events_;
  std::array<Function, kMaxFunctions> functions_;
  std::uint32_t used_ = 0;
  IntrusiveList<TaskManagement> waiting_;  // for a slot
  IntrusiveList<TaskManagement> unsent_;   // done without being sent
  std::uint64_t stuck_commands_ = 0;
  Timer timer_;  // while used_ is not 0
};

}  // namespace iscsi_blkback
