// GuestLoad: a guest with one disk, from its ring to the targets: FakeFrontend, grants and event
// channels in memory, and behind them the I/O side of a guest's process as it is: ring, multipath,
// sessions, on an io_uring reactor with a thread of its own. The guest runs on the caller's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/latency_histogram.h"
#include "base/poll_governor.h"
#include "base/result.h"

namespace iscsi_blkback {

struct LoadResult {
  double ios_per_second = 0;
  double cpu_us_per_io = 0;  // of the reactor's thread, which does all but the guest's part
  LatencyHistogram latency;  // as the guest sees it
  std::uint64_t errors = 0;
};

class GuestLoad {
 public:
  struct Disk {
    std::string target_name;
    std::uint16_t lun = 0;
    std::vector<std::uint16_t> ports;  // on 127.0.0.1; each is a path
    std::uint64_t bytes = 0;
    PollLimits poll;  // the reactor's
  };

  // Returns when the disk is connected over all its paths.
  [[nodiscard]] static Result<std::unique_ptr<GuestLoad>> start(const Disk& disk);
  ~GuestLoad();
  GuestLoad(const GuestLoad&) = delete;
  GuestLoad& operator=(const GuestLoad&) = delete;

  // Random reads or writes. io_bytes: a multiple of 512; what does not fit into one ring request is
  // several, as in a guest's kernel. depth: in units of io_bytes.
  [[nodiscard]] LoadResult run(bool write, std::uint32_t io_bytes, std::uint32_t depth,
                               std::chrono::milliseconds duration);

 private:
  class Impl;
  explicit GuestLoad(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace iscsi_blkback
