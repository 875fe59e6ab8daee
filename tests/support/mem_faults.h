// MemFaults: makes the n-th fallible call to an in-memory seam fail, so that a test can walk
// through every place where a call can fail (SQLite's method: n = 1, 2, ... until a run ends with
// no failure fired). Also collects what the twins found wrong. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace iscsi_blkback {

class MemFaults {
 public:
  // The nth (from 1) fallible call from now on fails, and the times - 1 calls that follow it.
  void fail_nth(std::uint64_t nth, std::uint64_t times = 1) {
    const std::lock_guard lock(mutex_);
    remaining_ = nth;
    times_ = times;
    fired_.clear();
  }
  // The next count calls of this name fail (0: all from now on).
  void fail_calls(std::string call, std::uint64_t count = 0) {
    const std::lock_guard lock(mutex_);
    failing_ = std::move(call);
    failures_left_ = count == 0 ? std::numeric_limits<std::uint64_t>::max() : count;
  }
  void disarm() {
    fail_nth(0);
    fail_calls({});
  }
  // Calls of a test's own, in between, neither fail nor count.
  void set_paused(bool paused) {
    const std::lock_guard lock(mutex_);
    paused_ = paused;
  }
  // How often a call of this name was made, failed or not, paused or not.
  [[nodiscard]] std::uint64_t calls(const std::string& call) const {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(call);
    return found == calls_.end() ? 0 : found->second;
  }

  // Which call failed first; empty: none so far.
  [[nodiscard]] std::string fired() const {
    const std::lock_guard lock(mutex_);
    return fired_;
  }

  // For the twins: true means that this call must fail now.
  [[nodiscard]] bool hit(const char* call) {
    const std::lock_guard lock(mutex_);
    const auto counted = calls_.find(std::string_view(call));
    ++(counted != calls_.end() ? counted : calls_.emplace(call, 0).first)->second;
    if (paused_) {
      return false;
    }
    if (failures_left_ != 0 && failing_ == call) {
      --failures_left_;
      fired_ = call;
      return true;
    }
    if (remaining_ == 0 || --remaining_ != 0) {
      return false;
    }
    remaining_ = --times_ != 0 ? 1 : 0;
    if (fired_.empty()) {
      fired_ = call;
    }
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
  std::uint64_t times_ = 1;
  std::uint64_t failures_left_ = 0;
  std::string failing_;
  bool paused_ = false;
  std::map<std::string, std::uint64_t, std::less<>> calls_;
  std::string fired_;
  std::vector<std::string> violations_;
};

}  // namespace iscsi_blkback
