// Core dumps: a process that has CHAP secrets and guests' data in its memory makes none, unless an
// operator who looks for a fault wants them (core_dumps in the configuration). Then they hold the
// registers of all threads and the stacks of each OwnStackThread, which tell where it happened, and
// neither the heap nor any buffer.
//
// How: the kernel dumps anonymous memory that is shared, and these stacks are such, but none that
// is private (coredump_filter, core(5)), which everything else is.
#pragma once

#include <functional>

#include "base/result.h"

namespace iscsi_blkback {

// As the first thing that a program does, before it reads a secret: no core dumps, and no other
// process of the same user looks into this one's memory (PR_SET_DUMPABLE). Its files in /proc are
// root's from now on; what the process itself does with them is not affected.
void forbid_core_dumps();

// Undoes that for dumps as described above, up to the hard limit of RLIMIT_CORE. Before the threads
// that are to be dumped are started. Error: the system call's.
[[nodiscard]] Result<void> allow_core_dumps();

// For who has changed its user, which makes the kernel decide anew.
void keep_core_dumps_as_they_are();

// A thread whose stack is dumped once dumps are allowed; joined by its destructor.
class OwnStackThread {
 public:
  // run: ends by itself. The error: no thread or no memory for it.
  [[nodiscard]] static Result<OwnStackThread> start(std::function<void()> run);
  OwnStackThread(OwnStackThread&& other) noexcept;
  OwnStackThread& operator=(OwnStackThread&&) = delete;
  ~OwnStackThread();

 private:
  struct Thread;
  explicit OwnStackThread(Thread* thread) : thread_(thread) {}
  Thread* thread_;
};

}  // namespace iscsi_blkback
