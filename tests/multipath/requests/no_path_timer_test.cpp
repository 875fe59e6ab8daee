// Outages of a disk: when no_path_retry is over, and what does not count.
#include "multipath/requests/no_path_timer.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

class NoPathTimerTest : public testing::Test, public NoPathTimer::Owner {
 protected:
  static constexpr NoPathTimer::Paths kNone{};
  static constexpr NoPathTimer::Paths kGood{.any_up = true, .any_reliable = true};
  static constexpr NoPathTimer::Paths kShaky{.any_up = true, .any_keeps_ending = true};
  static constexpr NoPathTimer::Paths kShakyAndDown{.any_keeps_ending = true};

  void become(const NoPathTimer::Paths& paths) {
    const bool had_path = paths_.any_up;
    paths_ = paths;
    timer_.on_paths(paths, had_path);
  }
  void lose_all() {
    become(kGood);
    become(kNone);
  }

  [[nodiscard]] NoPathTimer::Paths paths_now() const override { return paths_; }
  void on_no_path_retry_over() noexcept override { ++over_; }
  void on_path_has_lasted() noexcept override { ++lasted_; }

  SimReactor reactor_{1};
  NoPathTimer timer_{reactor_, seconds(30), *this};
  NoPathTimer::Paths paths_ = kNone;
  int over_ = 0;
  int lasted_ = 0;
};

TEST_F(NoPathTimerTest, ADiskThatHasNotHadAPathWaitsForOne) {
  become(kNone);
  reactor_.run_for(seconds(60));
  EXPECT_FALSE(timer_.expired());
}

TEST_F(NoPathTimerTest, ExpiresAfterNoPathRetryAndEndsWithAPath) {
  lose_all();
  reactor_.run_for(seconds(29));
  EXPECT_FALSE(timer_.expired());
  reactor_.run_for(seconds(2));
  EXPECT_TRUE(timer_.expired());
  EXPECT_EQ(over_, 1);
  EXPECT_EQ(timer_.timeouts(), 1U);
  become(kGood);
  EXPECT_FALSE(timer_.expired());
  EXPECT_EQ(timer_.queued_time(), seconds(30)) << "what failed has not waited";
}

TEST_F(NoPathTimerTest, APathInTimeStopsIt) {
  lose_all();
  reactor_.run_for(seconds(20));
  become(kGood);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(over_, 0);
  EXPECT_EQ(timer_.queued_time(), seconds(20));
}

TEST_F(NoPathTimerTest, WaitsForEverWithoutATime) {
  timer_.set_wait(std::nullopt);
  lose_all();
  reactor_.run_for(seconds(100'000));
  EXPECT_EQ(over_, 0);
}

TEST_F(NoPathTimerTest, ATimeThatIsSetLaterCountsFromTheLoss) {
  timer_.set_wait(std::nullopt);
  lose_all();
  reactor_.run_for(seconds(20));
  timer_.set_wait(seconds(30));
  reactor_.run_for(seconds(11));
  EXPECT_EQ(over_, 1);
}

TEST_F(NoPathTimerTest, ALongerTimeHoldsForAnOutageThatHadExpired) {
  lose_all();
  reactor_.run_for(seconds(31));
  timer_.set_wait(seconds(60));
  EXPECT_FALSE(timer_.expired());
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(timer_.expired());
  EXPECT_EQ(timer_.queued_time(), seconds(59)) << "30 s, and 29 s since the change";
}

TEST_F(NoPathTimerTest, APathThatKeepsEndingDoesNotStopIt) {
  lose_all();
  for (int time = 0; time < 6; ++time) {
    become(kShaky);
    reactor_.run_for(seconds(1));
    become(kShakyAndDown);
    reactor_.run_for(seconds(4));
  }
  reactor_.run_for(seconds(1));
  EXPECT_EQ(over_, 1);
}

TEST_F(NoPathTimerTest, APathThatHasLastedEndsTheOutage) {
  lose_all();
  reactor_.run_for(seconds(1));
  become(kShaky);
  paths_ = kGood;  // which nobody tells
  reactor_.run_for(seconds(30));
  EXPECT_EQ(over_, 0);
  EXPECT_EQ(lasted_, 1);
}

TEST_F(NoPathTimerTest, BeginsAnewWhenASuspendedGuestGoesOn) {
  lose_all();
  reactor_.run_for(seconds(20));
  timer_.suspend(GuestState::suspended);
  reactor_.run_for(seconds(100));
  EXPECT_EQ(over_, 0);
  timer_.resume();
  reactor_.run_for(seconds(29));
  EXPECT_EQ(over_, 0);
  reactor_.run_for(seconds(2));
  EXPECT_EQ(over_, 1);
}

TEST_F(NoPathTimerTest, ADoubtTakesItsOwnTimeOnly) {
  lose_all();
  reactor_.run_for(seconds(20));
  timer_.suspend(GuestState::in_doubt);
  reactor_.run_for(seconds(100));
  timer_.resume();
  reactor_.run_for(seconds(11));
  EXPECT_EQ(over_, 1);
}

TEST_F(NoPathTimerTest, ADoubtThatWasASuspendBeginsItAnew) {
  lose_all();
  reactor_.run_for(seconds(20));
  timer_.suspend(GuestState::in_doubt);
  timer_.suspend(GuestState::suspended);
  timer_.suspend(GuestState::in_doubt);
  timer_.resume();
  reactor_.run_for(seconds(29));
  EXPECT_EQ(over_, 0);
}

TEST_F(NoPathTimerTest, TheTimeOfALossInADoubtBeginsWithTheEndOfTheDoubt) {
  become(kGood);
  timer_.suspend(GuestState::in_doubt);
  reactor_.run_for(seconds(50));
  become(kNone);
  reactor_.run_for(seconds(50));
  timer_.resume();
  reactor_.run_for(seconds(29));
  EXPECT_EQ(over_, 0);
  reactor_.run_for(seconds(2));
  EXPECT_EQ(over_, 1);
}

TEST_F(NoPathTimerTest, NothingExpiresAfterClose) {
  lose_all();
  timer_.close();
  reactor_.run_for(seconds(60));
  timer_.set_wait(seconds(1));
  reactor_.run_for(seconds(60));
  EXPECT_EQ(over_, 0);
}

}  // namespace
}  // namespace iscsi_blkback
