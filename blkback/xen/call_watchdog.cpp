#include "blkback/xen/call_watchdog.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kCallLog = "xen";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

CallWatchdog::CallWatchdog(const char* callee, std::chrono::milliseconds notice_after,
                           SlowCallListener* listener)
    : callee_(callee), notice_after_(notice_after), listener_(listener) {
  // Signals are for the threads that expect them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

CallWatchdog::~CallWatchdog() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void CallWatchdog::begin(const char* what, const std::string& path) {
  const std::lock_guard lock(mutex_);
  busy_ = true;
  noticed_ = heard_of_ = false;
  ++number_;
  what_ = what;
  path_ = path;
  started_ = BlockingClock::now();
  if (sleeps_) {
    changed_.notify_one();
  }
}

void CallWatchdog::end() {
  const int error = errno;
  bool heard_of = false;
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    heard_of = heard_of_;
    if (noticed_) {
      log_warning(kCallLog, "{} has answered after {:.1f} s ({} {})", callee_,
                  seconds_since(started_), what_, path_);
    }
  }
  if (heard_of) {
    listener_->on_slow_call_over();
  }
  errno = error;
}

// While calls come one after the other, the thread wakes once in notice_after (or in the patience
// of who listens), and not at all while there are none.
void CallWatchdog::run() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    if (!busy_) {
      sleeps_ = true;
      changed_.wait(lock, [this] { return busy_ || ending_; });
      sleeps_ = false;
      continue;
    }
    const std::uint64_t call = number_;
    auto notice_after = notice_after_;
    auto notice_at = BlockingClock::now() + notice_after;
    auto listener_at = listener_ != nullptr ? started_ + SlowCallListener::kPatience
                                            : BlockingClock::time_point::max();
    while (busy_ && number_ == call && !ending_) {
      if (changed_.wait_until(lock, std::min(notice_at, listener_at), [this] { return ending_; })) {
        return;
      }
      if (!busy_ || number_ != call) {
        break;
      }
      const auto now = BlockingClock::now();
      if (now >= listener_at) {
        heard_of_ = true;
        listener_->on_slow_call();
        listener_at = now + SlowCallListener::kInterval;
      }
      if (now >= notice_at) {
        noticed_ = true;
        log_warning(kCallLog,
                    "{} has not answered for {:.0f} s ({} {}), what depends on it waits; disks go "
                    "on being served",
                    callee_, seconds_since(started_), what_, path_);
        notice_after *= 2;
        notice_at = now + notice_after;
      }
    }
  }
}

}  // namespace iscsi_blkback
