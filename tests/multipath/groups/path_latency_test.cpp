// prio path_latency: what requests and measuring reads tell of the paths, over the real engine and
// a simulated array, in virtual time.
#include "tests/multipath/groups/path_policy_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(PathPolicyTest, PathLatencyLeavesTheSlowPathsForTheFastOnes) {
  options_.prio =
      make_prioritizer(PrioritizerKind::path_latency, std::vector<std::string>()).value();
  start_target({1, 1, 2, 2});
  reactor_.network().set_latency(portal_address(2), milliseconds(10));
  reactor_.network().set_latency(portal_address(3), milliseconds(10));
  start_device();
  EXPECT_EQ(spread(80), (Ints{20, 20, 20, 20})) << "nothing is known yet";
  reactor_.run_for(seconds(6));
  EXPECT_EQ(snapshot().groups.size(), 2U);
  EXPECT_GT(priorities()[0], priorities()[2]);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

// Portals 2 and 3 are slow, and known to be.
class PathLatencyTest : public PathPolicyTest {
 protected:
  void set_latency(std::size_t portal, Duration one_way) {
    reactor_.network().set_latency(portal_address(portal), one_way);
  }
  void start_two_slow() {
    options_.prio =
        make_prioritizer(PrioritizerKind::path_latency, std::vector<std::string>()).value();
    start_target({1, 1, 2, 2});
    set_latency(2, milliseconds(10));
    set_latency(3, milliseconds(10));
    start_device();
    spread(80);
    reactor_.run_for(seconds(6));
    ASSERT_EQ(spread(), (Ints{6, 6, 0, 0}));
  }
};

TEST_F(PathLatencyTest, APathThatIsFastAgainIsUsedAgain) {
  start_two_slow();
  set_latency(2, std::chrono::microseconds(100));
  set_latency(3, std::chrono::microseconds(100));
  for (int second = 0; second < 30; ++second) {
    spread();
    reactor_.run_for(seconds(1));
  }
  EXPECT_EQ(spread(), (Ints{3, 3, 3, 3}));
}

TEST_F(PathLatencyTest, APathThatBecomesSlowIsLeftThoughTheDiskIsIdle) {
  start_two_slow();
  set_latency(0, milliseconds(10));
  reactor_.run_for(seconds(30));
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
}

TEST_F(PathLatencyTest, ALoginMeasuresAnew) {
  start_two_slow();
  cut(2);
  ASSERT_TRUE(wait_for_up(3));
  set_latency(2, std::chrono::microseconds(100));
  restore(2);
  ASSERT_TRUE(wait_for_up(4));
  EXPECT_EQ(spread(), (Ints{4, 4, 4, 0})) << "nothing is known of it";
  reactor_.run_for(seconds(60));
  EXPECT_EQ(spread(), (Ints{4, 4, 4, 0}));
}

TEST_F(PathLatencyTest, APathThatHangsIsAskedOnceAndDelaysNobody) {
  session_options_.command_timeout = milliseconds(0);
  start_two_slow();
  int asked = 0;
  SimFault hangs;
  hangs.matches = [&asked](const SimCommand& command) {
    const bool hit = command.portal == 3 && is_read(command);
    asked += hit ? 1 : 0;
    return hit;
  };
  hangs.count = 0;
  hangs.answer = false;
  target_->inject(hangs);
  reactor_.run_for(seconds(120));
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(PathLatencyTest, CloseWaitsForOneReadAtMost) {
  start_two_slow();
  set_latency(3, milliseconds(100));
  bool asked = false;
  SimFault none;
  none.matches = [&asked](const SimCommand& command) {
    asked = asked || (command.portal == 3 && is_read(command));
    return false;
  };
  target_->inject(none);
  ASSERT_TRUE(reactor_.run_until([&asked] { return asked; }, seconds(30)));
  target_->clear_faults();
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, milliseconds(300)));
  device_.reset();
}

TEST_F(PathLatencyTest, WhatAMeasurementHearsIsNotLost) {
  start_two_slow();
  target_->inject(sense_fault(SenseKey::unit_attention, 0x3f0e, 1));  // meets one of ours
  lun_->options.naa_extension = 9;
  EXPECT_TRUE(reactor_.run_until([this] { return up() < 4; }, seconds(25)));
}

}  // namespace
}  // namespace iscsi_blkback
