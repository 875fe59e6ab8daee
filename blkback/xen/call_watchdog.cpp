#include "blkback/xen/call_watchdog.h"

#include <signal.h>

#include <cerrno>

#include "base/log.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kCallLog = "xen";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

CallWatchdog::CallWatchdog(const char* callee, std::chrono::milliseconds notice_after)
    : callee_(callee), notice_after_(notice_after) {
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
  noticed_ = false;
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
  const std::lock_guard lock(mutex_);
  busy_ = false;
  if (noticed_) {
    log_warning(kCallLog, "{} has answered after {:.1f} s ({} {})", callee_,
                seconds_since(started_), what_, path_);
  }
  errno = error;
}

// While calls come one after the other, the thread wakes once in notice_after, and not at all
// while there are none.
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
    while (busy_ && number_ == call && !ending_) {
      if (changed_.wait_for(lock, notice_after, [this] { return ending_; })) {
        return;
      }
      if (busy_ && number_ == call) {
        noticed_ = true;
        log_warning(kCallLog,
                    "{} has not answered for {:.0f} s ({} {}), what depends on it waits; disks go "
                    "on being served",
                    callee_, seconds_since(started_), what_, path_);
        notice_after *= 2;
      }
    }
  }
}

}  // namespace iscsi_blkback
