// What every client that a benchmark compares is asked to do, and what is measured of it. Each runs
// in a process of its own on core 0, so that getrusage() counts nothing else.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/latency_histogram.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

struct Workload {
  bool write = false;
  std::uint32_t io_bytes = 4096;
  std::uint32_t depth = 1;     // of all sessions together
  std::uint32_t sessions = 1;  // a thread serves all of them
  bool digests = false;        // header and data
  std::string target_name;
  std::uint16_t lun = 0;
  std::uint64_t lun_bytes = 0;
  std::vector<std::uint16_t> ports;  // on 127.0.0.1, taken in turn by the sessions
  std::chrono::milliseconds warm_up{100};
  std::chrono::milliseconds duration{600};

  [[nodiscard]] std::string url() const;  // of the first port
};

struct ClientResult {
  double ios_per_second = 0;
  double cpu_us_per_io = 0;        // user and system
  double system_calls_per_io = 0;  // 0: not counted
  double p50_us = 0;               // 0: not known
  double p99_us = 0;
  std::uint64_t errors = 0;
};

// Counts what a client does between its warm-up and its end.
class LoadMeter {
 public:
  explicit LoadMeter(const Workload& workload)
      : warm_up_(workload.warm_up), duration_(workload.duration) {}

  void start();
  // Once whenever the client wakes up, before completed(); all that follows happened now.
  // system_calls: of the client so far.
  void wake(std::uint64_t system_calls);
  [[nodiscard]] TimePoint now() const { return now_; }
  [[nodiscard]] bool running() const { return phase_ != Phase::done; }
  void completed(TimePoint started, bool good) {
    ++ios_;
    latency_.record(now_ - started);
    errors_ += good ? 0 : 1;
  }
  [[nodiscard]] ClientResult result() const;

 private:
  enum class Phase : std::uint8_t { warm_up, measuring, done };

  Duration warm_up_;
  Duration duration_;
  Phase phase_ = Phase::warm_up;
  TimePoint now_{};
  TimePoint phase_began_{};
  TimePoint ended_{};
  double cpu_seconds_ = 0;
  std::uint64_t system_calls_ = 0;
  std::uint64_t ios_ = 0;
  std::uint64_t measured_ios_ = 0;
  std::uint64_t errors_ = 0;
  LatencyHistogram latency_;
  LatencyHistogram measured_latency_;
};

// A random multiple of io_bytes below lun_bytes, in bytes.
class RandomPlace {
 public:
  RandomPlace(std::uint64_t lun_bytes, std::uint32_t io_bytes)
      : places_(lun_bytes / io_bytes), io_bytes_(io_bytes) {}
  [[nodiscard]] std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    // The high half of a product: no division.
    return ((state_ >> 32) * places_ >> 32) * io_bytes_;
  }

 private:
  std::uint64_t places_;  // below 2^32
  std::uint64_t io_bytes_;
  std::uint64_t state_ = 0x2545f4914f6cdd1d;
};

[[nodiscard]] TimePoint monotonic_now();

// Runs client in a child pinned to this core; its result, or why there is none.
[[nodiscard]] Result<ClientResult> run_client_process(
    const std::function<Result<ClientResult>()>& client, int core);

// The clients.
[[nodiscard]] Result<ClientResult> run_engine(const Workload& workload);
[[nodiscard]] Result<ClientResult> run_libiscsi(const Workload& workload);
[[nodiscard]] Result<UniqueFd> connect_raw(const Workload& workload);
// The raw exchange with a NullTarget that has raw_request_bytes set.
[[nodiscard]] Result<ClientResult> run_raw(const Workload& workload);
// The same over io_uring.
enum class UringBuffers : std::uint8_t { plain, registered, zero_copy, registered_zero_copy };
[[nodiscard]] Result<ClientResult> run_uring(const Workload& workload, UringBuffers buffers);
// Programs; unsupported when they are not installed or cannot do it.
[[nodiscard]] Result<ClientResult> run_iscsi_perf_client(const Workload& workload, int core);
[[nodiscard]] Result<ClientResult> run_qemu_img(const Workload& workload, int core);
[[nodiscard]] Result<ClientResult> run_fio(const Workload& workload, int core);

}  // namespace iscsi_blkback
