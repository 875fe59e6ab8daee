// CallWatchdog: says in the log when a call that blocks (libxenstore's have no time limit) has not
// returned for long, and when it has at last; a SlowCallListener hears of it much earlier. It has a
// thread of its own, since the caller's cannot say it. Owned by what makes the calls; one call at a
// time, from one thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace iscsi_blkback {

class SlowCallListener {
 public:
  // Longer than calls take.
  static constexpr std::chrono::milliseconds kPatience{50};
  static constexpr std::chrono::milliseconds kInterval{100};

  // A call has not returned for kPatience, and then again and again. From the watchdog's thread;
  // the call does not end before this has returned.
  virtual void on_slow_call() = 0;
  // A call has ended of which that was said. From the caller's thread.
  virtual void on_slow_call_over() = 0;

 protected:
  ~SlowCallListener() = default;
};

class CallWatchdog {
 public:
  // callee: who is called, in the log's words; a literal. listener: outlives this; null: nobody.
  CallWatchdog(const char* callee, std::chrono::milliseconds notice_after,
               SlowCallListener* listener = nullptr);
  ~CallWatchdog();
  CallWatchdog(const CallWatchdog&) = delete;
  CallWatchdog& operator=(const CallWatchdog&) = delete;

  // What call() returns; errno is that of call(), too. what and path say in the log which call it
  // is, "reading" and a node.
  template <class Call>
  auto watched(const char* what, const std::string& path, Call&& call) {
    const Guard guard(*this, what, path);
    return std::forward<Call>(call)();
  }

 private:
  using BlockingClock = std::chrono::steady_clock;  // of a thread, not of a reactor

  class Guard {
   public:
    Guard(CallWatchdog& watchdog, const char* what, const std::string& path) : watchdog_(watchdog) {
      watchdog_.begin(what, path);
    }
    ~Guard() { watchdog_.end(); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    CallWatchdog& watchdog_;
  };

  void begin(const char* what, const std::string& path);
  void end();
  void run();

  const char* callee_;
  std::chrono::milliseconds notice_after_;
  SlowCallListener* listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  bool sleeps_ = false;  // the thread waits for the next call
  bool busy_ = false;
  bool noticed_ = false;
  bool heard_of_ = false;     // by the listener
  std::uint64_t number_ = 0;  // of the latest call
  const char* what_ = "";
  std::string path_;
  BlockingClock::time_point started_{};
  std::thread thread_;
};

}  // namespace iscsi_blkback
