// How the in-memory twins make their descriptors readable, so that a simulation needs to ask the
// kernel about them only after somebody did. Any thread.
#pragma once

#include <sys/eventfd.h>

#include <atomic>
#include <cstdint>

#include "base/result.h"

namespace iscsi_blkback {

// How often signal_ready() has been called.
inline std::atomic<std::uint64_t> ready_fd_signals{0};

// Makes an eventfd readable.
inline void signal_ready(int fd) {
  ready_fd_signals.fetch_add(1, std::memory_order_relaxed);
  ISCSI_BLKBACK_ASSERT(eventfd_write(fd, 1) == 0);
}

}  // namespace iscsi_blkback
