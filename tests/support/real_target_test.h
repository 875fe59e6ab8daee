// RealTargetTest: what tests with real targets on loopback have in common: the real reactor, and that
// they are skipped where there is no target. A derived SetUp() calls this one first and returns when
// IsSkipped().
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <utility>

#include "base/uring_reactor.h"
#include "tests/support/tgt_process.h"

namespace iscsi_blkback {

class RealTargetTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::seconds kDeadline{60};  // generous: only bounds a hang

  void SetUp() override {
    if (!TgtProcess::available()) {
      GTEST_SKIP() << "needs root and the package tgt";
    }
    make_reactor();
  }

  // For tests of another target, in place of SetUp().
  void make_reactor() {
    auto created = UringReactor::create();
    if (!created) {
      GTEST_SKIP() << created.error().message;
    }
    ::signal(SIGPIPE, SIG_IGN);
    reactor = std::move(*created);
  }

  template <class Condition>
  [[nodiscard]] bool run_until(Condition condition) {
    const TimePoint end = reactor ? reactor->now() + kDeadline : TimePoint{};
    while (!condition()) {
      if (reactor->now() > end) {
        return false;
      }
      reactor->run_once(std::chrono::milliseconds{20});
    }
    return true;
  }

  std::unique_ptr<UringReactor> reactor;
};

}  // namespace iscsi_blkback
