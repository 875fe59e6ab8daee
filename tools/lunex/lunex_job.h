// LunexJob: keeps a number of requests under way at a disk, in the patterns and words of fio(1),
// and counts what comes back. With verification every block written carries a stamp
// (lunex_pattern.h) and every block read that this run has written is compared with it. Everything
// is allocated before the first request; none of it while requests run. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/buffer_pool.h"
#include "base/latency_histogram.h"
#include "base/reactor.h"
#include "base/result.h"
#include "tools/lunex/lunex_pattern.h"

namespace iscsi_blkback {

struct LunexJobOptions {
  bool reads = true;  // both: mixed
  bool writes = false;
  bool random = true;
  std::uint32_t read_percent = 50;  // of a mixed job; 0..100
  std::uint32_t block_bytes = 4096;
  std::uint32_t depth = 1;  // requests under way; 1..kMaxLunexDepth
  // The part of the disk that is used; size 0: up to its end. Both are multiples of its logical
  // blocks.
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  // The job ends with what comes first; without both, when it has gone once through its blocks. And
  // as in fio(1) with the first request that fails: where every one does at once, for want of a
  // path, the job would only count how fast.
  std::optional<Duration> runtime;
  std::optional<std::uint64_t> requests;
  // Nobody has chosen them: they are lessened to what the LUN and the part of it allow.
  bool lessen_block_bytes = false;
  bool lessen_depth = false;  // of a verification
  bool flush_at_end = false;  // one flush after the last answer, not counted as a request
  std::uint64_t seed = 1;     // of offsets and of the mix
};

inline constexpr std::uint32_t kMaxLunexDepth = 4096;
inline constexpr std::uint32_t kMaxLunexBlockBytes = 16 << 20;
// Of verification: a generation for each.
inline constexpr std::uint64_t kMaxLunexVerifiedBlocks = std::uint64_t{1} << 28;

// What the blocks of a region contain, as far as this run has written them; shared by the jobs of
// one run.
class LunexGenerations {
 public:
  explicit LunexGenerations(std::uint64_t run) : run_(run) {}
  [[nodiscard]] std::uint64_t run() const { return run_; }

 private:
  friend class LunexJob;
  // One for each block of the job: generation, 0 not written by this run; the uppermost bit while a
  // request for it is under way, so that no two are.
  static constexpr std::uint32_t kBusy = 0x80000000;
  std::uint64_t run_;
  std::vector<std::uint32_t> blocks_;
};

struct LunexJobResult {
  struct Direction {
    std::uint64_t requests = 0;  // answered with success
    std::uint64_t bytes = 0;
    LatencyHistogram latency;
  };
  Direction read;
  Direction write;
  Duration elapsed{};             // from the first request to the end of the last, answered or not
  std::uint64_t failed = 0;       // requests that were answered with an error
  std::string first_error;        // one sentence
  std::uint64_t unanswered = 0;   // requests that were given up, which no latency shows
  Duration longest_unanswered{};  // for how long one of them had waited
  std::uint64_t compared_bytes = 0;         // read, and found as this run has written them
  std::optional<PatternMismatch> mismatch;  // of the lowest block found wrong

  [[nodiscard]] std::uint64_t requests() const { return read.requests + write.requests; }
  [[nodiscard]] std::uint64_t bytes() const { return read.bytes + write.bytes; }
  [[nodiscard]] std::uint64_t errors() const { return failed + unanswered + (mismatch ? 1 : 0); }
};

class LunexJob {
 public:
  // generations: verification, or null. The device is ready and outlives the job.
  // Errors: invalid_argument (options that do not fit the disk; one sentence), exhausted (memory).
  [[nodiscard]] static Result<std::unique_ptr<LunexJob>> create(Reactor& reactor,
                                                                BlockDevice& device,
                                                                LunexJobOptions options,
                                                                LunexGenerations* generations);
  ~LunexJob();  // idle
  LunexJob(const LunexJob&) = delete;
  LunexJob& operator=(const LunexJob&) = delete;

  void start();
  // Submits nothing new; done() when everything under way has been answered.
  void stop();
  [[nodiscard]] bool done() const {
    return started_ && in_flight_ == 0 && flush_ != Flush::running;
  }
  // Nothing new is submitted, and only answers of requests are waited for. A flush takes its time.
  [[nodiscard]] bool ending() const { return stopping_ && flush_ != Flush::running; }
  // For a progress report and for results that do not come any more.
  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
  [[nodiscard]] const LunexJobResult& result() const { return result_; }
  // As they are used: lessened, where they may be.
  [[nodiscard]] const LunexJobOptions& options() const { return options_; }

 private:
  struct Slot {
    BlockRequest request;
    LunexJob* job = nullptr;
    TimePoint submitted;
    std::uint64_t block = 0;  // of the job's region, in units of block_bytes
    std::byte* buffer = nullptr;
  };
  enum class Flush : std::uint8_t { none, running, done };

  LunexJob(Reactor& reactor, BlockDevice& device, const LunexJobOptions& options,
           LunexGenerations* generations, std::unique_ptr<BufferPool> buffers);

  static void on_complete(BlockRequest& request, IoStatus status) noexcept;
  void completed(Slot& slot, IoStatus status, TimePoint now);
  void next(Slot& slot, TimePoint now);
  [[nodiscard]] std::uint64_t choose_block(bool write);
  [[nodiscard]] std::uint32_t bytes_of(std::uint64_t block) const;
  void stamp(Slot& slot);
  void compare(const Slot& slot);
  void finish(TimePoint now);
  void note_error(const Slot& slot, IoStatus status, TimePoint now);
  [[nodiscard]] std::uint64_t random();

  Reactor& reactor_;
  BlockDevice& device_;
  LunexJobOptions options_;
  LunexGenerations* generations_;
  std::unique_ptr<BufferPool> buffers_;
  std::vector<Slot> slots_;
  std::uint64_t region_bytes_ = 0;
  std::uint64_t blocks_ = 0;
  std::uint64_t next_read_ = 0;  // of sequential jobs
  std::uint64_t next_write_ = 0;
  std::uint64_t random_state_;
  std::uint64_t issued_ = 0;
  std::uint32_t in_flight_ = 0;
  bool started_ = false;
  bool stopping_ = false;
  Flush flush_ = Flush::none;
  TimePoint began_{};
  Timer end_timer_;
  LunexJobResult result_;
};

}  // namespace iscsi_blkback
