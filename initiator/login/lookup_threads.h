// LookupThreads: threads for look-ups, which block and may hang for ever: the system's resolver
// cannot be stopped. There are kMaxThreads at most, behind them a queue. Any thread.
//
// A look-up that hangs keeps its own thread, and no other thing: it does not delay the end of the
// process, and others do not wait for it, since only kMaxPerKey look-ups of one key run at once.
// The keys are who makes us ask (a target, which may send us to look up whatever names it likes)
// and who is asked (a portal that is dead). It takes kMaxThreads / kMaxPerKey targets or portals
// that all hang to keep the others waiting.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

class LookupThreads {
 public:
  static constexpr unsigned kMaxThreads = 32;
  static constexpr unsigned kMaxPerKey = 4;
  static constexpr std::size_t kMaxWaiting = 4096;

  using Call = std::function<void()>;

  LookupThreads();
  // What waits is dropped; what runs is left behind, so that a call must own what it uses.
  ~LookupThreads();
  LookupThreads(const LookupThreads&) = delete;
  LookupThreads& operator=(const LookupThreads&) = delete;

  // Runs call on one of the threads, in the order of asking as far as the keys allow it. One that
  // waits is dropped when wanted has expired. exhausted: kMaxWaiting wait; other errors: no thread
  // can be started. Call is not run then.
  [[nodiscard]] Result<void> run(std::vector<std::string> keys, std::weak_ptr<void> wanted,
                                 Call call);

 private:
  struct State;
  static void work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;  // shared with the threads
};

}  // namespace iscsi_blkback
