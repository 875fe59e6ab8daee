#include "multipath/fencing/barrier_thread.h"

#include <utility>

#include "base/log.h"

namespace iscsi_blkback {

BarrierThread::~BarrierThread() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    waiting_.clear();
  }
  wake_.notify_one();
}

void BarrierThread::run(std::unique_ptr<BarrierJob> job) {
  if (!thread_) {
    auto started = OwnStackThread::start([this] { work(); });
    if (!started) {
      log_warning("multipath", "no thread for the files of the barrier: {}",
                  started.error().message);
      job->work();
      hand_back(std::move(job));
      return;
    }
    thread_.emplace(std::move(*started));
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void BarrierThread::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return ends_ || !waiting_.empty(); });
    if (ends_) {
      return;
    }
    std::unique_ptr<BarrierJob> job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    job->work();
    hand_back(std::move(job));
    lock.lock();
  }
}

void BarrierThread::hand_back(std::unique_ptr<BarrierJob> job) {
  // A std::function can be copied, which a job cannot.
  reactor_.post([job = std::shared_ptr<BarrierJob>(std::move(job))] { job->done(); });
}

}  // namespace iscsi_blkback
