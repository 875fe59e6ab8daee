// SharedLookups: look-ups on LookupThreads whose answers come on the asker's reactor. What is being
// looked up already is not looked up again: all who ask the same hear the one answer.
// Any reactor's thread; answers are posted to the asker's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "base/result.h"
#include "initiator/login/lookup_threads.h"

namespace iscsi_blkback {

template <class Value>
class SharedLookups {
  struct Shared;
  struct Question;
  struct Listener;

 public:
  using Look = std::function<Result<Value>()>;  // blocks; on a thread, and owns what it uses
  using Told = std::function<void(Result<Value>)>;

  // Someone who waits for an answer. Destroying it, from its own answer too, forgets the question.
  class Interest {
   public:
    Interest(std::shared_ptr<Shared> shared, std::shared_ptr<Question> question,
             std::shared_ptr<Listener> listener)
        : shared_(std::move(shared)),
          question_(std::move(question)),
          listener_(std::move(listener)) {}
    ~Interest() {
      const std::lock_guard lock(shared_->mutex);
      listener_->reactor = nullptr;
      std::erase(question_->listeners, listener_);
    }
    Interest(const Interest&) = delete;
    Interest& operator=(const Interest&) = delete;

   private:
    std::shared_ptr<Shared> shared_;
    std::shared_ptr<Question> question_;
    std::shared_ptr<Listener> listener_;
  };

  // threads outlives it.
  explicit SharedLookups(LookupThreads& threads) : threads_(threads) {}

  // what: the question; two that are alike are one. keys: see LookupThreads. told: once, on the
  // reactor, whose thread calls this; never from inside.
  [[nodiscard]] std::unique_ptr<Interest> ask(Reactor& reactor, const std::string& what,
                                              const std::vector<std::string>& keys, Look look,
                                              Told told) {
    auto listener = std::make_shared<Listener>(Listener{&reactor, std::move(told)});
    const std::lock_guard lock(shared_->mutex);
    std::erase_if(shared_->questions, [](const auto& entry) { return entry.second.expired(); });
    std::shared_ptr<Question> question = shared_->questions[what].lock();
    if (question == nullptr || question->answered) {
      question = std::make_shared<Question>();
      shared_->questions[what] = question;
    }
    question->listeners.push_back(listener);
    // One that still waits may wait because of its own asker's keys: then this one's count.
    if (!question->running && question->askers.insert(keys).second) {
      const auto begun = threads_.run(keys, question,
                                      [shared = shared_, asked = std::weak_ptr(question),
                                       look = std::move(look)] { look_up(*shared, asked, look); });
      if (!begun) {
        std::erase(question->listeners, listener);
        question->askers.erase(keys);
        tell(listener, tl::unexpected(begun.error()));
      }
    }
    return std::make_unique<Interest>(shared_, std::move(question), std::move(listener));
  }

 private:
  // reactor is guarded by the mutex, and changed on the reactor's thread only; told is that
  // thread's.
  struct Listener {
    Reactor* reactor;  // null: it does not wait any more
    Told told;
  };
  // Owned by those who wait, and by the thread that looks it up.
  struct Question {
    std::vector<std::shared_ptr<Listener>> listeners;
    std::set<std::vector<std::string>> askers;  // that have it in the queue
    bool running = false;
    bool answered = false;
  };
  struct Shared {
    std::mutex mutex;
    std::map<std::string, std::weak_ptr<Question>> questions;
  };

  // On a thread.
  static void look_up(Shared& shared, const std::weak_ptr<Question>& asked, const Look& look) {
    // Held while it runs: one that nobody waits for any more is heard of by who asks again.
    const std::shared_ptr<Question> question = begin(shared, asked);
    if (question == nullptr) {
      return;  // it runs for another asker already, or nobody waits any more
    }
    const Result<Value> answer = look();
    const std::lock_guard lock(shared.mutex);
    question->answered = true;
    for (const auto& listener : std::exchange(question->listeners, {})) {
      tell(listener, answer);
    }
  }
  static std::shared_ptr<Question> begin(Shared& shared, const std::weak_ptr<Question>& asked) {
    const std::lock_guard lock(shared.mutex);
    std::shared_ptr<Question> question = asked.lock();
    return question == nullptr || std::exchange(question->running, true) ? nullptr : question;
  }
  // With the mutex held, so that the listener's reactor does not go away meanwhile.
  static void tell(const std::shared_ptr<Listener>& listener, const Result<Value>& answer) {
    listener->reactor->post([listener, answer] {
      if (listener->reactor != nullptr) {
        const Told told = listener->told;  // the answer may end the interest
        told(answer);
      }
    });
  }

  LookupThreads& threads_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace iscsi_blkback
