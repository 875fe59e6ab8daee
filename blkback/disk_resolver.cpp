#include "blkback/disk_resolver.h"

#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace iscsi_blkback {
namespace {

struct Job {
  DiskPlan plan;
  DiskResolver::Done done;
};

// Shared with the workers. control is null once the resolver has gone: late answers are dropped.
struct Work {
  std::mutex mutex;
  std::deque<Job> jobs;
  unsigned threads = 0;
  Reactor* control = nullptr;
  PortalDirectory* directory = nullptr;
};

void run_jobs(const std::shared_ptr<Work>& work) {
  std::unique_lock lock(work->mutex);
  while (work->control != nullptr && !work->jobs.empty()) {
    Job job = std::move(work->jobs.front());
    work->jobs.pop_front();
    lock.unlock();
    Result<ResolvedDisk> result = resolve_disk(job.plan, *work->directory);
    lock.lock();
    if (work->control == nullptr) {
      break;
    }
    // Posted under the lock, so that the reactor cannot go away in between.
    work->control->post([work, done = std::move(job.done), answer = std::move(result)]() mutable {
      {
        const std::lock_guard guard(work->mutex);
        if (work->control == nullptr) {
          return;
        }
      }
      done(std::move(answer));
    });
  }
  --work->threads;
}

class ThreadedResolver final : public DiskResolver {
 public:
  ThreadedResolver(Reactor& control, PortalDirectory& directory) : work_(std::make_shared<Work>()) {
    work_->control = &control;
    work_->directory = &directory;
  }

  ~ThreadedResolver() override {
    const std::lock_guard lock(work_->mutex);
    work_->control = nullptr;
    work_->jobs.clear();
  }

  void resolve(DiskPlan plan, Done done) override {
    const std::lock_guard lock(work_->mutex);
    work_->jobs.push_back(Job{std::move(plan), std::move(done)});
    if (work_->threads == kMaxResolverThreads) {
      return;
    }
    try {
      std::thread(run_jobs, work_).detach();
      ++work_->threads;
    } catch (const std::system_error& failure) {
      if (work_->threads == 0) {
        // No thread at all: answer that, so that the disk tries again later.
        Job job = std::move(work_->jobs.back());
        work_->jobs.pop_back();
        work_->control->post([answer = std::move(job.done), errno_value = failure.code().value()] {
          answer(tl::unexpected(
              system_error("a thread for name resolution cannot be started", errno_value)));
        });
      }
    }
  }

 private:
  std::shared_ptr<Work> work_;
};

}  // namespace

std::unique_ptr<DiskResolver> make_threaded_resolver(Reactor& control, PortalDirectory& directory) {
  return std::make_unique<ThreadedResolver>(control, directory);
}

}  // namespace iscsi_blkback
