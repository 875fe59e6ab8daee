#include "initiator/discovery/discovery.h"

#include <future>
#include <optional>
#include <utility>

namespace iscsi_blkback {

Result<Discovery> discover(DiscoveryOptions options) {
  // One connection, with a receive and a send.
  auto reactor = UringReactor::create(
      {.submission_entries = 16, .completion_entries = 64, .deferred_task_run = true});
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  std::optional<Result<Discovery>> answer;
  DiscoverySession session(**reactor, std::move(options));
  session.start(
      [](void* slot, Result<Discovery> discovery) noexcept {
        *static_cast<std::optional<Result<Discovery>>*>(slot) = std::move(discovery);
      },
      &answer);
  while (!answer) {
    (*reactor)->run_once(std::chrono::seconds(1));
  }
  return std::move(*answer);
}

// On the reactor: made, and gone, there.
struct DiscoveryThread::Job {
  Job(Reactor& reactor, DiscoveryOptions options,
      std::shared_ptr<std::promise<Result<Discovery>>> told)
      : answer(std::move(told)), session(reactor, std::move(options)) {}

  std::shared_ptr<std::promise<Result<Discovery>>> answer;
  DiscoverySession session;
};

DiscoveryThread::DiscoveryThread(std::unique_ptr<UringReactor> reactor)
    : reactor_(std::move(reactor)) {}

DiscoveryThread::~DiscoveryThread() {
  if (thread_) {
    reactor_->stop();
    thread_.reset();
  }
}

Result<std::unique_ptr<DiscoveryThread>> DiscoveryThread::create() {
  // A connection for each of LookupThreads' threads, with a receive and a send.
  auto reactor = UringReactor::create(
      {.submission_entries = 64, .completion_entries = 256, .deferred_task_run = true});
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  return std::unique_ptr<DiscoveryThread>(new DiscoveryThread(std::move(*reactor)));
}

Result<void> DiscoveryThread::start_thread() {
  const std::lock_guard lock(mutex_);
  if (!thread_) {
    auto started = OwnStackThread::start([this] { reactor_->run(); });
    if (!started) {
      return tl::unexpected(started.error());
    }
    thread_.emplace(std::move(*started));
  }
  return {};
}

Result<Discovery> DiscoveryThread::discover(DiscoveryOptions options) {
  if (auto started = start_thread(); !started) {
    return tl::unexpected(started.error());
  }
  const auto answer = std::make_shared<std::promise<Result<Discovery>>>();
  auto answered = answer->get_future();
  reactor_->post([this, answer, options = std::move(options)] {
    auto* const job = new Job(*reactor_, options, answer);
    job->session.start(
        [](void* owner, Result<Discovery> discovery) noexcept {
          const std::unique_ptr<Job> done(static_cast<Job*>(owner));
          done->answer->set_value(std::move(discovery));
        },
        job);
  });
  return answered.get();
}

}  // namespace iscsi_blkback
