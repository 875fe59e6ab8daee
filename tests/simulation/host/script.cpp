#include "tests/simulation/host/script.h"

#include <chrono>
#include <utility>

namespace iscsi_blkback {

using std::chrono::microseconds;

namespace {

constexpr microseconds kMinLook{500};
constexpr microseconds kMaxLook{4000};

}  // namespace

Script::Script(SimReactor& reactor, std::function<bool()> able)
    : reactor_(reactor), eligible_(std::move(able)) {}

Script::~Script() {
  *exists_ = false;
}

Script& Script::then(std::function<void()> action) {
  steps_.push_back({.action = std::move(action)});
  look_soon();
  return *this;
}

Script& Script::wait(Duration length) {
  steps_.push_back({.at_most = length});
  look_soon();
  return *this;
}

Script& Script::until(std::function<bool()> condition, Duration at_most) {
  steps_.push_back({.condition = std::move(condition), .at_most = at_most});
  look_soon();
  return *this;
}

void Script::look_soon() {
  look_after(microseconds(reactor_.schedule_random().between(
      static_cast<std::uint64_t>(kMinLook.count()), static_cast<std::uint64_t>(kMaxLook.count()))));
}

void Script::look_after(Duration pause) {
  if (std::exchange(look_due_, true)) {
    return;
  }
  reactor_.schedule(pause, [this, exists = exists_] {
    if (*exists) {
      look_due_ = false;
      look();
    }
  });
}

// One action at a time: something may happen between two of them.
void Script::look() {
  if (steps_.empty()) {
    return;
  }
  Step& step = steps_.front();
  if (step.action) {
    if (eligible_()) {
      const std::function<void()> action = std::move(step.action);
      steps_.pop_front();
      action();
    }
  } else if (!step.condition) {
    const Duration length = step.at_most;
    steps_.pop_front();
    look_after(length);
    return;
  } else {
    if (!std::exchange(waits_, true)) {
      waits_since_ = reactor_.now();
    }
    if (step.condition() || reactor_.now() - waits_since_ >= step.at_most) {
      waits_ = false;
      steps_.pop_front();
    }
  }
  if (!steps_.empty()) {
    look_soon();
  }
}

}  // namespace iscsi_blkback
