// CommandWatchdog: which commands are stuck, scan by scan.
#include "initiator/session/command_watchdog.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class CommandWatchdogTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kTimeout = CommandWatchdog::kScansPerTimeout;

  CommandWatchdogTest() { options.command_timeout = 1600ms; }
  ~CommandWatchdogTest() override {
    table.for_each([this](TaskSlot& slot) { table.remove(slot); });
  }
  // As the session does it.
  TaskSlot& sent(std::size_t task, std::uint64_t lun = 0) {
    tasks.at(task).lun = lun;
    TaskSlot& slot = *table.find(table.insert(tasks.at(task)));
    slot.cmd_sn = next_cmd_sn++;
    slot.last_progress = watchdog.scan();
    return slot;
  }
  void scans(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      watchdog.begin_scan();
    }
  }
  [[nodiscard]] bool stuck(const TaskSlot& slot) const {
    return watchdog.stuck(slot, watchdog.oldest_moving(table, next_cmd_sn));
  }
  // How many more scans find it well.
  [[nodiscard]] std::uint32_t scans_until_stuck(const TaskSlot& slot) {
    for (std::uint32_t count = 0; count < 1000; ++count) {
      if (stuck(slot)) {
        return count;
      }
      scans(1);
    }
    return 1000;
  }

  SimReactor reactor{1};
  SessionOptions options;
  KeepAlive keep_alive{reactor, options, [](void*) noexcept {}, nullptr};
  int due = 0;
  CommandWatchdog watchdog{
      reactor, options, keep_alive,
      [](void* self) noexcept { ++static_cast<CommandWatchdogTest*>(self)->due; }, this};
  TaskTable table{4};
  std::array<ScsiTask, 4> tasks;
  std::uint32_t next_cmd_sn = 0xfffffffe;  // wraps
};

TEST_F(CommandWatchdogTest, ScansSixteenTimesInCommandTimeout) {
  watchdog.on_busy(reactor.now());
  reactor.run_for(50ms);
  watchdog.on_busy(reactor.now());
  reactor.run_for(49ms);
  EXPECT_EQ(due, 0);
  reactor.run_for(1ms);
  EXPECT_EQ(due, 1);
  reactor.run_for(1s);
  EXPECT_EQ(due, 1) << "until it goes on";
  watchdog.schedule(reactor.now());
  reactor.run_for(100ms);
  EXPECT_EQ(due, 2);
  watchdog.schedule(reactor.now());
  watchdog.stop();
  reactor.run_for(1s);
  EXPECT_EQ(due, 2);
}

TEST_F(CommandWatchdogTest, WithoutCommandTimeoutItNeverScans) {
  options.command_timeout = 0ms;
  watchdog.on_busy(reactor.now());
  reactor.run_for(1h);
  EXPECT_EQ(due, 0);
}

TEST_F(CommandWatchdogTest, ACommandThatDoesNotMoveIsStuckAfterCommandTimeout) {
  const TaskSlot& slot = sent(0);
  EXPECT_EQ(scans_until_stuck(slot), kTimeout + 1);
}

TEST_F(CommandWatchdogTest, OneThatMovesHasItsTimeAnew) {
  TaskSlot& slot = sent(0);
  scans(kTimeout);
  slot.last_progress = watchdog.scan();
  EXPECT_EQ(scans_until_stuck(slot), kTimeout + 1);
}

TEST_F(CommandWatchdogTest, OneThatWaitsBehindAnOlderOneThatMovesIsNotStuck) {
  TaskSlot& older = sent(0);
  sent(1);
  const TaskSlot& younger = sent(2);  // its CmdSN has wrapped
  for (std::uint32_t i = 0; i < 10 * kTimeout; ++i) {
    older.last_progress = watchdog.scan();
    scans(1);
    ASSERT_FALSE(stuck(younger));
  }
  table.remove(older);
  EXPECT_TRUE(stuck(younger));
}

TEST_F(CommandWatchdogTest, AnOlderOneIsStuckAlthoughAYoungerOneMoves) {
  const TaskSlot& older = sent(0);
  scans(kTimeout + 1);
  const TaskSlot& younger = sent(1);
  EXPECT_TRUE(stuck(older));
  EXPECT_FALSE(stuck(younger));
}

TEST_F(CommandWatchdogTest, OneThatWasGivenUpBeforeHasEightTimesAsLong) {
  tasks[0].stuck = 1;
  EXPECT_EQ(scans_until_stuck(sent(0)), 8 * kTimeout + 1);
}

TEST_F(CommandWatchdogTest, WhileASilentTargetIsWaitedForAllHaveFourTimesAsLong) {
  ASSERT_TRUE(keep_alive.goes_on(reactor.now(), true, {.may_wait = true, .given_up_before = true}));
  EXPECT_EQ(scans_until_stuck(sent(0)), 4 * kTimeout + 1);
}

TEST_F(CommandWatchdogTest, AfterTheSilenceAllHaveTheirTime) {
  const TaskSlot& slot = sent(0);
  scans(3 * kTimeout);
  watchdog.grant_all(table);
  EXPECT_EQ(scans_until_stuck(slot), kTimeout + 1);
}

TEST_F(CommandWatchdogTest, HastenedOnesOfTheLunHaveAnEighthLeft) {
  const TaskSlot& hastened = sent(0, 1);
  const TaskSlot& other = sent(1, 2);
  watchdog.hasten(table, 1);
  EXPECT_EQ(scans_until_stuck(hastened), kTimeout / 8 + 1);
  EXPECT_FALSE(stuck(other));
}

TEST_F(CommandWatchdogTest, HastenedOnesThatHaveLessLeftKeepThat) {
  const TaskSlot& slot = sent(0);
  scans(kTimeout - 1);
  watchdog.hasten(table, 0);
  EXPECT_EQ(scans_until_stuck(slot), 2U);
}

TEST_F(CommandWatchdogTest, CountsInTheLunsStuckTasksThatTheyWere) {
  sent(0, 1);
  sent(1, 2);
  scans(kTimeout + 1);
  sent(2, 1);
  watchdog.count_stuck(table, 1);
  EXPECT_EQ(tasks[0].stuck, 1);
  EXPECT_EQ(tasks[1].stuck, 0) << "another LUN's";
  EXPECT_EQ(tasks[2].stuck, 0) << "it has its time";
}

TEST_F(CommandWatchdogTest, AWindowThatLetsNothingThroughForCommandTimeoutIsClosed) {
  ASSERT_FALSE(watchdog.window_is_closed(false, 7));
  for (std::uint32_t i = 0; i < kTimeout; ++i) {
    ASSERT_FALSE(watchdog.window_is_closed(true, 7));
  }
  EXPECT_TRUE(watchdog.window_is_closed(true, 7));
}

TEST_F(CommandWatchdogTest, OneCommandThatGetsThroughOpensTheWindow) {
  for (std::uint32_t i = 0; i < 10 * kTimeout; ++i) {
    ASSERT_FALSE(watchdog.window_is_closed(true, i / kTimeout));
  }
}

}  // namespace
}  // namespace iscsi_blkback
