// When a lost write is fenced by a command of the logical unit, and what that may cost the guest.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "multipath/fencing/lun_fence.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The command is the test's: it says whether there is a path, and when the answer comes.
class LunFenceTimes : public testing::Test, private LunFence::Command, private LunFence::Owner {
 protected:
  static constexpr Duration kSettle = seconds(1);
  static constexpr Duration kQuiesce = seconds(60);
  // Of a look that comes when nobody asks for it.
  static constexpr Duration kLook = milliseconds(100);

  using Ready = LunFence::Command::Ready;
  LunFenceTimes() { set_log_level(LogLevel::error); }

  enum class By : std::uint8_t { reset, preemption };
  void make(By by) {
    make({.preempts = by == By::preemption,
          .resets = by == By::reset,
          .settle_time = kSettle,
          .quiesce_time = kQuiesce});
  }
  void make(const LunFence::Options& options) {
    fence_.emplace(reactor_, options, unfenced_, static_cast<LunFence::Command&>(*this), steps_,
                   log_, static_cast<LunFence::Owner&>(*this));
  }
  void lose_a_write() {
    (void)unfenced_.add({.first_sector = 0,
                         .end_sector = 8,
                         .owner = ++last_owner_,
                         .nexus = {},
                         .harmless_at = reactor_.now() + kQuiesce});
    fence_->start();
  }
  // It has settled, and has been looked at.
  void lose_a_write_and_settle() {
    lose_a_write();
    reactor_.run_for(kSettle + kLook);
  }
  void answer(bool done) { fence_->on_answered(done, "refused"); }
  [[nodiscard]] bool pump_is_due() {
    reactor_.run_for(Duration::zero());
    return std::exchange(pumps_, 0) != 0;
  }

  SimReactor reactor_{1};
  std::optional<LunFence> fence_;
  UnfencedWrites unfenced_{16};
  // What the command says.
  bool has_path_ = true;
  Ready ready_ = Ready::yes;
  bool wanted_ = true;
  // What it has heard.
  std::vector<Duration> tries_;  // since the test began
  int sent_ = 0;
  int abandoned_ = 0;
  int released_ = 0;
  int doubted_ = 0;
  int fenced_ = 0;

 private:
  [[nodiscard]] bool choose_path(TimePoint /*harmless_at*/) override {
    tries_.push_back(reactor_.now() - began_);
    return has_path_;
  }
  [[nodiscard]] Ready ready() const override { return ready_; }
  void send() override { ++sent_; }
  void abandon() override { ++abandoned_; }
  [[nodiscard]] bool take_answer(bool done, TimePoint harmless_at) override {
    return done && unfenced_.expire(harmless_at);
  }
  void release_path() override { ++released_; }
  void doubt_requests() override { ++doubted_; }
  [[nodiscard]] std::string text() const override { return "COMMAND through a path"; }
  [[nodiscard]] bool fence_is_wanted() const override { return wanted_; }
  void on_lun_fenced() noexcept override { ++fenced_; }

  const TimePoint began_ = reactor_.now();
  std::uint64_t last_owner_ = 0;
  int pumps_ = 0;
  DiskLog log_{reactor_, "disk"};
  DiskSteps steps_{reactor_,
                   [](void* self) noexcept {
                     auto& test = *static_cast<LunFenceTimes*>(self);
                     while (const auto step = test.steps_.take_next({})) {
                       test.pumps_ += step == DiskStep::pump ? 1 : 0;
                     }
                   },
                   this};
};

TEST_F(LunFenceTimes, NothingIsSentBeforeTheLossHasSettled) {
  make(By::reset);
  lose_a_write();
  reactor_.run_for(kSettle);
  EXPECT_EQ(sent_, 0);
  reactor_.run_for(kLook);
  EXPECT_EQ(sent_, 1);
  answer(true);
  EXPECT_TRUE(unfenced_.empty());
  EXPECT_EQ(fenced_, 1);
  reactor_.run_for(kQuiesce);
  EXPECT_EQ(sent_, 1);
}

TEST_F(LunFenceTimes, ACommandVouchesForWhatHadSettledWhenItWasSent) {
  make(By::reset);
  lose_a_write();
  reactor_.run_for(milliseconds(500));
  lose_a_write();
  reactor_.run_for(milliseconds(600));
  ASSERT_EQ(sent_, 1);
  reactor_.run_for(milliseconds(900));
  answer(true);
  EXPECT_EQ(unfenced_.size(), 1U) << "the second one has settled since";
  reactor_.run_for(kLook);
  EXPECT_EQ(sent_, 2);
  answer(true);
  EXPECT_TRUE(unfenced_.empty());
}

TEST_F(LunFenceTimes, NothingIsSentWhileNobodyWaitsOrNoPathReachesIt) {
  make(By::reset);
  wanted_ = false;
  lose_a_write();
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(tries_.empty());
  wanted_ = true;
  has_path_ = false;
  reactor_.run_for(seconds(10));
  EXPECT_EQ(sent_, 0);
  EXPECT_FALSE(fence_->under_way());
  has_path_ = true;
  reactor_.run_for(kLook);
  EXPECT_EQ(sent_, 1);
}

TEST_F(LunFenceTimes, NothingIsSentWhereItIsNotAllowedOrComesTooLate) {
  const LunFence::Options rows[] = {
      {.settle_time = kSettle, .quiesce_time = kQuiesce},
      {.resets = true, .settle_time = kQuiesce, .quiesce_time = kQuiesce},
      {.preempts = true, .settle_time = kQuiesce, .quiesce_time = kQuiesce},
  };
  for (const LunFence::Options& row : rows) {
    make(row);
    lose_a_write();
    reactor_.run_for(kQuiesce * 2);
    EXPECT_TRUE(tries_.empty());
  }
}

TEST_F(LunFenceTimes, AResetWaitsAMomentForOurOwnCommands) {
  make(By::reset);
  ready_ = Ready::busy;
  lose_a_write_and_settle();
  EXPECT_TRUE(fence_->pausing());
  reactor_.run_for(milliseconds(150));
  EXPECT_EQ(sent_, 0);
  ready_ = Ready::yes;
  reactor_.run_for(milliseconds(2));
  EXPECT_EQ(sent_, 1);
}

TEST_F(LunFenceTimes, RequestsGoOnWhenOurOwnCommandsTakeLongerThanThat) {
  make(By::reset);
  ready_ = Ready::busy;
  lose_a_write_and_settle();
  reactor_.run_for(milliseconds(199));
  EXPECT_TRUE(fence_->pausing());
  reactor_.run_for(milliseconds(2));
  EXPECT_FALSE(fence_->pausing());
  EXPECT_TRUE(pump_is_due());
  EXPECT_EQ(sent_, 0);
}

TEST_F(LunFenceTimes, NothingIsSentByAPathThatIsNotUpAnyMore) {
  make(By::reset);
  ready_ = Ready::no_path;
  lose_a_write_and_settle();
  EXPECT_FALSE(fence_->pausing());
  EXPECT_EQ(sent_, 0);
}

TEST_F(LunFenceTimes, WhatFailsIsTriedAgainTwiceAsLateEachTime) {
  make(By::reset);
  ready_ = Ready::no_path;
  lose_a_write();
  reactor_.run_for(seconds(50));
  std::vector<Duration> gaps;
  for (std::size_t i = 1; i < tries_.size(); ++i) {
    gaps.push_back(tries_[i] - tries_[i - 1]);
  }
  EXPECT_EQ(gaps, (std::vector<Duration>{seconds(1), seconds(2), seconds(4), seconds(8),
                                         seconds(16), seconds(16)}));
}

TEST_F(LunFenceTimes, RequestsWaitAMomentForTheAnswerToAReset) {
  make(By::reset);
  lose_a_write_and_settle();
  ASSERT_EQ(sent_, 1);
  reactor_.run_for(milliseconds(150));
  EXPECT_TRUE(fence_->pausing());
  answer(true);
  EXPECT_FALSE(fence_->pausing());
  EXPECT_TRUE(pump_is_due());
  EXPECT_EQ(doubted_, 0) << "nothing was sent meanwhile";
}

TEST_F(LunFenceTimes, WhatWasSentBeforeALateAnswerIsInDoubt) {
  make(By::reset);
  lose_a_write_and_settle();
  reactor_.run_for(milliseconds(201));
  EXPECT_FALSE(fence_->pausing());
  EXPECT_TRUE(pump_is_due());
  reactor_.run_for(seconds(30));
  EXPECT_EQ(sent_, 1) << "there is one at a time, for as long as its connection lives";
  EXPECT_EQ(doubted_, 0);
  answer(true);
  EXPECT_EQ(doubted_, 1);
  EXPECT_TRUE(unfenced_.empty());
}

TEST_F(LunFenceTimes, ARefusalFencesNothing) {
  for (const By by : {By::reset, By::preemption}) {
    make(by);
    sent_ = 0;
    lose_a_write_and_settle();
    ASSERT_EQ(sent_, 1);
    answer(false);
    EXPECT_FALSE(unfenced_.empty());
    EXPECT_EQ(fenced_, 0);
    reactor_.run_for(seconds(1));
    EXPECT_EQ(sent_, 2);
    unfenced_.clear();
    answer(true);
  }
}

TEST_F(LunFenceTimes, APreemptionHoldsUpItsPathOnlyAndThatNotForEver) {
  make(By::preemption);
  ready_ = Ready::busy;  // it ends nobody else's commands
  lose_a_write_and_settle();
  ASSERT_EQ(sent_, 1);
  EXPECT_FALSE(fence_->pausing());
  EXPECT_TRUE(fence_->must_be_awaited());
  reactor_.run_for(milliseconds(4999));
  EXPECT_EQ(released_, 0);
  reactor_.run_for(milliseconds(2));
  EXPECT_EQ(released_, 1);
  EXPECT_TRUE(fence_->must_be_awaited());
  answer(true);
  EXPECT_FALSE(fence_->must_be_awaited());
  EXPECT_EQ(doubted_, 0);
}

TEST_F(LunFenceTimes, ASuspendEndsThePauseBeforeAReset) {
  make(By::reset);
  ready_ = Ready::busy;
  lose_a_write_and_settle();
  ASSERT_TRUE(fence_->pausing());
  fence_->suspend();
  has_path_ = false;  // no path allows it now
  ready_ = Ready::yes;
  EXPECT_FALSE(fence_->pausing());
  reactor_.run_for(seconds(10));
  EXPECT_EQ(sent_, 0);
}

TEST_F(LunFenceTimes, ASuspendLeavesAResetThatWasSentToItsAnswer) {
  make(By::reset);
  lose_a_write_and_settle();
  fence_->suspend();
  EXPECT_TRUE(fence_->under_way());
  answer(true);
  EXPECT_TRUE(unfenced_.empty());
}

TEST_F(LunFenceTimes, TheEndGivesUpAResetButNotAPreemption) {
  for (const By by : {By::reset, By::preemption}) {
    make(by);
    abandoned_ = doubted_ = sent_ = 0;
    lose_a_write_and_settle();
    ASSERT_EQ(sent_, 1);
    unfenced_.clear();
    fence_->stop();
    EXPECT_EQ(abandoned_, by == By::reset ? 1 : 0);
    EXPECT_EQ(doubted_, by == By::reset ? 1 : 0) << "it may end what is sent after it";
    EXPECT_EQ(fence_->must_be_awaited(), by == By::preemption);
    reactor_.run_for(seconds(100));
    EXPECT_EQ(sent_, 1);
  }
}

}  // namespace
}  // namespace iscsi_blkback
