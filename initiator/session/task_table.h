// TaskTable: the commands that a session has at the target, in a fixed array indexed by the low
// half of the initiator task tag; the high half is a generation that makes a late or forged answer
// for an earlier user of the slot miss. No allocation, no search. Reactor thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "initiator/scsi/scsi_task.h"

namespace iscsi_blkback {

struct TaskSlot {
  ScsiTask* task = nullptr;  // null: free
  std::uint16_t generation = 0;
  std::uint16_t outstanding_r2ts = 0;
  std::uint32_t next_sn = 0;          // of the next Data-In (reads) or R2T (writes)
  std::uint32_t arrived_bytes = 0;    // reads: data so far, always in order
  std::uint32_t staged_bytes = 0;     // writes: end of what was given to the connection so far
  std::uint32_t requested_bytes = 0;  // writes: end of what was sent unasked or asked for
  std::uint32_t cmd_sn = 0;
  std::uint32_t last_progress = 0;  // the scan (CommandWatchdog) before which it last moved
  std::uint64_t last_batch = 0;     // the last send that refers to the task's buffer
};

class TaskTable {
 public:
  // Tags of slots from here on belong to the session's own PDUs (ping, login, logout).
  static constexpr std::uint32_t kMaxSlots = 4096;

  explicit TaskTable(std::uint32_t slot_count) : slots_(slot_count) {
    ISCSI_BLKBACK_ASSERT(slot_count >= 1 && slot_count <= kMaxSlots);
    free_.reserve(slot_count);
    for (std::uint32_t slot = slot_count; slot-- > 0;) {
      free_.push_back(static_cast<std::uint16_t>(slot));
    }
  }

  [[nodiscard]] bool full() const { return free_.empty(); }

  // Not when full. Returns the initiator task tag.
  [[nodiscard]] std::uint32_t insert(ScsiTask& task) {
    const std::uint16_t index = free_.back();
    free_.pop_back();
    TaskSlot& slot = slots_[index];
    const auto generation = static_cast<std::uint16_t>(slot.generation + 1);
    slot = TaskSlot{};
    slot.task = &task;
    slot.generation = generation;
    return std::uint32_t{index} | std::uint32_t{generation} << 16;
  }

  // The slot of a command at the target, null when the tag names none.
  [[nodiscard]] TaskSlot* find(std::uint32_t tag) {
    const std::uint32_t index = tag & 0xffff;
    if (index >= slots_.size()) {
      return nullptr;
    }
    TaskSlot& slot = slots_[index];
    return slot.task != nullptr && slot.generation == tag >> 16 ? &slot : nullptr;
  }

  // Frees the slot and returns its task.
  ScsiTask& remove(TaskSlot& slot) {
    ScsiTask& task = *slot.task;
    slot.task = nullptr;
    free_.push_back(static_cast<std::uint16_t>(&slot - slots_.data()));
    return task;
  }

  // The slots of all commands at the target, in no order that means anything; visit may remove its
  // own.
  template <class Visit>
  void for_each(Visit&& visit) {
    for (TaskSlot& slot : slots_) {
      if (slot.task != nullptr) {
        visit(slot);
      }
    }
  }
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const TaskSlot& slot : slots_) {
      if (slot.task != nullptr) {
        visit(slot);
      }
    }
  }
  // Null: none is so.
  template <class Is>
  [[nodiscard]] const TaskSlot* find_if(Is&& is) const {
    const auto found = std::find_if(slots_.begin(), slots_.end(), [&](const TaskSlot& slot) {
      return slot.task != nullptr && is(slot);
    });
    return found == slots_.end() ? nullptr : &*found;
  }
  // Of a slot in use.
  [[nodiscard]] std::uint32_t tag_of(const TaskSlot& slot) const {
    return static_cast<std::uint32_t>(&slot - slots_.data()) | std::uint32_t{slot.generation} << 16;
  }

 private:
  std::vector<TaskSlot> slots_;
  std::vector<std::uint16_t> free_;
};

}  // namespace iscsi_blkback
