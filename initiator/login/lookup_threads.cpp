#include "initiator/login/lookup_threads.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace iscsi_blkback {

struct LookupThreads::State {
  struct Task {
    std::vector<std::string> keys;
    std::weak_ptr<void> wanted;
    Call call;
  };

  // The next task that its keys let run; end(): none.
  [[nodiscard]] std::list<Task>::iterator next() {
    return std::find_if(waiting.begin(), waiting.end(), [&](const Task& task) {
      return std::all_of(task.keys.begin(), task.keys.end(), [&](const std::string& key) {
        const auto found = running.find(key);
        return found == running.end() || found->second < kMaxPerKey;
      });
    });
  }
  void drop_unwanted() {
    waiting.remove_if([](const Task& task) { return task.wanted.expired(); });
  }

  std::mutex mutex;
  std::list<Task> waiting;
  std::map<std::string, unsigned> running;  // by key
  unsigned threads = 0;
};

LookupThreads::LookupThreads() : state_(std::make_shared<State>()) {}

LookupThreads::~LookupThreads() {
  const std::lock_guard lock(state_->mutex);
  state_->waiting.clear();
}

Result<void> LookupThreads::run(std::vector<std::string> keys, std::weak_ptr<void> wanted,
                                Call call) {
  const std::lock_guard lock(state_->mutex);
  state_->drop_unwanted();
  if (state_->waiting.size() == kMaxWaiting) {
    return fail(ErrorCode::exhausted,
                fmt::format("{} look-ups of names and portals wait already", kMaxWaiting));
  }
  state_->waiting.push_back({std::move(keys), std::move(wanted), std::move(call)});
  if (state_->threads == kMaxThreads || state_->next() == state_->waiting.end()) {
    return {};  // taken up by a thread that becomes ready
  }
  try {
    std::thread([state = state_] { work(state); }).detach();
    ++state_->threads;
  } catch (const std::system_error& failure) {
    state_->waiting.pop_back();
    return tl::unexpected(
        system_error("a thread for name resolution cannot be started", failure.code().value()));
  }
  return {};
}

// Threads end when there is nothing for them to do.
void LookupThreads::work(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->drop_unwanted();
    const auto next = state->next();
    if (next == state->waiting.end()) {
      break;
    }
    State::Task task = std::move(*next);
    state->waiting.erase(next);
    for (const std::string& key : task.keys) {
      ++state->running[key];
    }
    lock.unlock();
    task.call();
    task.call = nullptr;  // what it owns goes before others are let in
    lock.lock();
    for (const std::string& key : task.keys) {
      if (--state->running[key] == 0) {
        state->running.erase(key);
      }
    }
  }
  --state->threads;
}

}  // namespace iscsi_blkback
