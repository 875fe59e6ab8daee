#include "blkback/threaded_inquirer.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace iscsi_blkback {
namespace {

using Answer = std::function<void()>;  // to be run on the control thread

struct Inquiry {
  std::string asked;  // the portal
  std::function<Answer(PortalDirectory&)> ask;
};

// Shared with the threads. control is null once the inquirer has gone: late answers are dropped.
struct Inquiries {
  std::mutex mutex;
  std::list<Inquiry> waiting;
  std::map<std::string, unsigned> running;  // by portal
  unsigned threads = 0;
  Reactor* control = nullptr;
  PortalDirectory* directory = nullptr;
};

std::list<Inquiry>::iterator next_inquiry(Inquiries& inquiries) {
  return std::find_if(
      inquiries.waiting.begin(), inquiries.waiting.end(), [&](const Inquiry& candidate) {
        const auto running = inquiries.running.find(candidate.asked);
        return running == inquiries.running.end() || running->second < kMaxLookupsPerPortal;
      });
}

void post_answer(const std::shared_ptr<Inquiries>& inquiries, Answer answer) {
  inquiries->control->post([inquiries, answer = std::move(answer)] {
    {
      const std::lock_guard guard(inquiries->mutex);
      if (inquiries->control == nullptr) {
        return;
      }
    }
    answer();
  });
}

void run_inquiries(const std::shared_ptr<Inquiries>& inquiries) {
  std::unique_lock lock(inquiries->mutex);
  while (inquiries->control != nullptr) {
    const auto next = next_inquiry(*inquiries);
    if (next == inquiries->waiting.end()) {
      break;
    }
    const Inquiry inquiry = std::move(*next);
    inquiries->waiting.erase(next);
    ++inquiries->running[inquiry.asked];
    lock.unlock();
    Answer answer = inquiry.ask(*inquiries->directory);
    lock.lock();
    if (--inquiries->running[inquiry.asked] == 0) {
      inquiries->running.erase(inquiry.asked);
    }
    if (inquiries->control != nullptr) {
      // Under the lock, so that the reactor cannot go away in between.
      post_answer(inquiries, std::move(answer));
    }
  }
  --inquiries->threads;
}

class ThreadedInquirer final : public PortalInquirer {
 public:
  ThreadedInquirer(Reactor& control, PortalDirectory& directory)
      : inquiries_(std::make_shared<Inquiries>()) {
    inquiries_->control = &control;
    inquiries_->directory = &directory;
  }

  ~ThreadedInquirer() override {
    const std::lock_guard lock(inquiries_->mutex);
    inquiries_->control = nullptr;
    inquiries_->waiting.clear();
  }

  void resolve(const Portal& portal, std::function<void(Result<SocketAddress>)> done) override {
    add<SocketAddress>(
        portal, [portal](PortalDirectory& directory) { return directory.resolve(portal); },
        std::move(done));
  }

  void discover(const Portal& at, const SessionOptions& session, const std::string& target_name,
                std::function<void(Result<std::vector<Portal>>)> done) override {
    add<std::vector<Portal>>(
        at,
        [at, session, target_name](PortalDirectory& directory) {
          return directory.discover(at, session, target_name);
        },
        std::move(done));
  }

 private:
  template <class Value, class Ask>
  void add(const Portal& portal, Ask ask, std::function<void(Result<Value>)> done) {
    const std::lock_guard lock(inquiries_->mutex);
    inquiries_->waiting.push_back({portal.to_string(), [ask, done](PortalDirectory& directory) {
                                     return Answer([done, value = ask(directory)] { done(value); });
                                   }});
    if (inquiries_->threads == kMaxResolverThreads ||
        next_inquiry(*inquiries_) == inquiries_->waiting.end()) {
      return;  // taken up by the thread that is ready next
    }
    try {
      std::thread(run_inquiries, inquiries_).detach();
      ++inquiries_->threads;
    } catch (const std::system_error& failure) {
      // Answered, so that the disk tries again later.
      inquiries_->waiting.pop_back();
      post_answer(inquiries_, [done, errno_value = failure.code().value()] {
        done(tl::unexpected(
            system_error("a thread for name resolution cannot be started", errno_value)));
      });
    }
  }

  std::shared_ptr<Inquiries> inquiries_;
};

}  // namespace

std::unique_ptr<PortalInquirer> make_threaded_inquirer(Reactor& control,
                                                       PortalDirectory& directory) {
  return std::make_unique<ThreadedInquirer>(control, directory);
}

}  // namespace iscsi_blkback
