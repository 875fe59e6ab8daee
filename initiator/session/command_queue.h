// CommandQueue: the commands of a session from submit() to completion: those that wait, with no
// byte of them sent; those at the target, in its TaskTable; those that are answered while a send
// still refers to their data; and those that are refused, or taken back, which complete with
// not_sent later in the turn. Each completes exactly once. Part of a Session; reactor thread.
#pragma once

#include <cstdint>

#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "initiator/scsi/scsi_task.h"
#include "initiator/session/logout_sequence.h"
#include "initiator/session/task_table.h"

namespace iscsi_blkback {

class CommandQueue {
 public:
  // What is referred to outlives it. flush: something may be sent now. events: complete_refused()
  // is to be called.
  CommandQueue(Reactor& reactor, std::uint32_t max_commands, const LogoutSequence& logout,
               Deferred& flush, Deferred& events)
      : reactor_(reactor), logout_(logout), flush_(flush), events_(events), table_(max_commands) {}

  // Returns whether it is the only one.
  bool submit(ScsiTask& task) {
    waiting_.push_back(task);
    flush_.schedule();
    reactor_.await_answer(task.data_length_bytes);
    return in_flight_++ == 0;
  }
  void refuse(ScsiTask& task);
  // Takes back those that wait and are the caller's.
  void withdraw_unsent(bool (*is_callers)(const ScsiTask& task, const void* caller) noexcept,
                       const void* caller);
  // Whether the task waited; it is taken back then.
  [[nodiscard]] bool withdraw(const ScsiTask& task);

  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }  // not refused
  [[nodiscard]] bool busy() const { return in_flight_ != 0; }
  [[nodiscard]] bool has_waiting() const { return !waiting_.empty(); }
  [[nodiscard]] bool has_refused() const { return !refused_.empty(); }
  // There is one that waits, and a slot for it.
  [[nodiscard]] bool has_next() const { return !waiting_.empty() && !table_.full(); }
  [[nodiscard]] const ScsiTask& next() { return waiting_.front(); }
  // Gives it the slot; returns its tag.
  [[nodiscard]] std::uint32_t take_next() { return table_.insert(*waiting_.pop_front()); }
  [[nodiscard]] TaskTable& table() { return table_; }
  [[nodiscard]] TaskSlot* find(std::uint32_t tag) { return table_.find(tag); }

  // The target has answered it, and its outcome is set. referred_to: a send refers to its data, so
  // that it completes with complete_referred_to(); the submitter must not get its buffer back
  // before the kernel has let go of that.
  void finish(TaskSlot& slot, bool referred_to);
  void complete_referred_to();
  void complete_refused();
  // The connection is gone: all but the refused ones complete.
  void connection_lost();

  // Of those at the target, with regard to SilencePatience: one was given up before; all are given
  // up now.
  [[nodiscard]] bool one_given_up_before() const;
  void count_stall();

 private:
  void complete(ScsiTask& task);

  void leave(const ScsiTask& task) {
    reactor_.end_awaiting(task.data_length_bytes);
    --in_flight_;
  }

  Reactor& reactor_;
  const LogoutSequence& logout_;
  Deferred& flush_;
  Deferred& events_;
  TaskTable table_;
  IntrusiveList<ScsiTask> waiting_;
  IntrusiveList<ScsiTask> referred_to_;
  IntrusiveList<ScsiTask> refused_;
  std::uint32_t in_flight_ = 0;
};

}  // namespace iscsi_blkback
