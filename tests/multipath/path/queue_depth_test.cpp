#include "multipath/path/queue_depth.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

TimePoint after(int ms) {
  return TimePoint{} + std::chrono::seconds(1000) + std::chrono::milliseconds(ms);
}

TEST(QueueDepth, NoLimitUntilTheLunSaysSo) {
  const QueueDepth depth(1024);
  EXPECT_FALSE(depth.limited());
  EXPECT_EQ(depth.limit(), QueueDepth::kNoLimit);
}

TEST(QueueDepth, TaskSetFullHalvesWhatWasOutstanding) {
  QueueDepth depth(1024);
  depth.on_task_set_full(after(0), 63);
  EXPECT_EQ(depth.limit(), 32U);
  depth.on_task_set_full(after(200), 31);
  EXPECT_EQ(depth.limit(), 16U);
}

TEST(QueueDepth, BusyTakesAnEighth) {
  QueueDepth depth(1024);
  depth.on_busy(after(0), 63);
  EXPECT_EQ(depth.limit(), 56U);
  depth.on_busy(after(200), 55);
  EXPECT_EQ(depth.limit(), 49U);
}

TEST(QueueDepth, ABurstOfRefusalsCountsOnce) {
  QueueDepth depth(1024);
  for (int i = 0; i < 50; ++i) {
    depth.on_task_set_full(after(i), 63);
  }
  EXPECT_EQ(depth.limit(), 32U);
}

TEST(QueueDepth, NeverBelowOne) {
  QueueDepth depth(1024);
  for (int i = 0; i < 100; ++i) {
    depth.on_task_set_full(after(i * 200), 1);
    depth.on_busy(after(i * 200 + 100), 1);
    EXPECT_GE(depth.limit(), 1U);
  }
  EXPECT_EQ(depth.limit(), 1U);
}

TEST(QueueDepth, TheOnlyCommandRefusedSaysNothingOfTheDepth) {
  QueueDepth depth(1024);
  depth.on_busy(after(0), 0);
  depth.on_task_set_full(after(0), 0);
  EXPECT_FALSE(depth.limited());
}

TEST(QueueDepth, GrowsSlowlyAndOnlyWithSuccess) {
  QueueDepth depth(1024);
  depth.on_task_set_full(after(0), 63);
  for (int ms = 0; ms < 1000; ++ms) {
    depth.on_success(after(ms));
  }
  EXPECT_EQ(depth.limit(), 32U);
  depth.on_success(after(1000));
  EXPECT_EQ(depth.limit(), 36U);
  depth.on_success(after(1999));
  EXPECT_EQ(depth.limit(), 36U);
  depth.on_success(after(60000));
  EXPECT_EQ(depth.limit(), 40U) << "a step at a time, however long it was quiet";
}

TEST(QueueDepth, ForgetsItsLimitAtTheTop) {
  QueueDepth depth(64);
  depth.on_task_set_full(after(0), 3);
  EXPECT_EQ(depth.limit(), 2U);
  int steps = 0;
  while (depth.limited()) {
    ASSERT_LE(++steps, 100);
    depth.on_success(after(steps * 1000));
    ASSERT_TRUE(!depth.limited() || depth.limit() <= 64U);
  }
  EXPECT_GE(steps, 20);
}

TEST(QueueDepth, ResetForgets) {
  QueueDepth depth(1024);
  depth.on_task_set_full(after(0), 63);
  depth.reset();
  EXPECT_FALSE(depth.limited());
}

}  // namespace
}  // namespace iscsi_blkback
