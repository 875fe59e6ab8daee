// MemFaults: makes the n-th fallible call to an in-memory seam fail, so that a test can walk
// through every place where a call can fail (SQLite's method: n = 1, 2, ... until a run ends with
// no failure fired). Also collects what the twins found wrong. Any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

namespace iscsi_blkback {

class MemFaults {
 public:
  // The nth (from 1) fallible call from now on fails, once.
  void fail_nth(std::uint64_t nth) {
    const std::lock_guard lock(mutex_);
    remaining_ = nth;
    fired_.clear();
  }
  void disarm() { fail_nth(0); }
  // While others call than whoever is to meet the failure: returns what resume() is to be given.
  [[nodiscard]] std::uint64_t pause() {
    const std::lock_guard lock(mutex_);
    return std::exchange(remaining_, 0);
  }
  void resume(std::uint64_t remaining) {
    const std::lock_guard lock(mutex_);
    remaining_ = remaining;
  }

  // Which call failed; empty: none so far.
  [[nodiscard]] std::string fired() const {
    const std::lock_guard lock(mutex_);
    return fired_;
  }

  // For the twins: true means that this call must fail now.
  [[nodiscard]] bool hit(const char* call) {
    const std::lock_guard lock(mutex_);
    if (remaining_ == 0 || --remaining_ != 0) {
      return false;
    }
    fired_ = call;
    return true;
  }

  // A broken rule of the caller's (a leak, a page freed while mapped ...).
  void report(std::string violation) {
    const std::lock_guard lock(mutex_);
    violations_.push_back(std::move(violation));
  }
  [[nodiscard]] std::vector<std::string> take_violations() {
    const std::lock_guard lock(mutex_);
    return std::exchange(violations_, {});
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t remaining_ = 0;
  std::string fired_;
  std::vector<std::string> violations_;
};

}  // namespace iscsi_blkback
