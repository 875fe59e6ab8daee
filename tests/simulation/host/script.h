// Script: something that takes several steps, one after the other, on the main reactor, each when
// what it waits for has come: what a toolstack does for one guest.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class Script {
 public:
  // able: whether a step can be taken at all now. Both are called as long as the script runs.
  Script(SimReactor& reactor, std::function<bool()> able);
  ~Script();
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;

  Script& then(std::function<void()> action);
  Script& wait(Duration length);
  // Goes on when it holds, or after at_most.
  Script& until(std::function<bool()> condition, Duration at_most);

  [[nodiscard]] bool done() const { return steps_.empty() && !look_due_; }

 private:
  struct Step {
    std::function<void()> action = {};
    std::function<bool()> condition = {};
    Duration at_most{};
  };

  void look();
  void look_soon();
  void look_after(Duration pause);

  SimReactor& reactor_;
  std::function<bool()> eligible_;
  std::deque<Step> steps_;
  TimePoint waits_since_{};
  bool waits_ = false;
  bool look_due_ = false;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace iscsi_blkback
