// A target that works on one command at a time and answers nothing meanwhile, pings included: silence is
// not death. Its computer's kernel answers; a cut cable's does not.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class BusyTargetTest : public MultipathTest {
 protected:
  // Every write keeps the target from doing anything else for so long.
  void start_busy(Duration works_for, std::vector<std::uint16_t> portals = {1}) {
    works_for_ = works_for;
    start(std::move(portals));
    SimFault fault;
    fault.count = 0;
    fault.execute = true;
    fault.matches = [this](const SimCommand& command) {
      if (is_write(command) && works_for_ != Duration::zero()) {
        ++executions_;
        target_->set_hung(true);
        reactor_.schedule(works_for_, [target = target_.get()] { target->set_hung(false); });
      }
      return false;
    };
    target_->inject(fault);
  }
  void TearDown() override {
    works_for_ = Duration::zero();
    reactor_.run_for(seconds(1));
    MultipathTest::TearDown();
  }

  Duration works_for_{};
  std::uint32_t executions_ = 0;
};

// 12 executions and no end, before.
TEST_F(BusyTargetTest, ACommandThatTakesLongerThanPathTimeoutIsAnswered) {
  start_busy(seconds(3));
  const GuestRequest& request = write(0, 8, 7);
  EXPECT_EQ(answer(request, seconds(60)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
  EXPECT_LE(request.took(), milliseconds(6500));
  EXPECT_LE(executions_, 2U);
}

TEST_F(BusyTargetTest, ASecondPathNeitherHelpsNorHarms) {
  start_busy(seconds(3), {1, 1});
  const GuestRequest& request = write(0, 8, 7);
  EXPECT_EQ(answer(request, seconds(60)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(6500));
  EXPECT_LE(executions_, 2U);
}

TEST_F(BusyTargetTest, HoweverLongItTakesTwiceThatIsEnough) {
  for (const int takes : {5, 9, 20, 28}) {
    SCOPED_TRACE(takes);
    if (device_) {
      works_for_ = seconds(takes);
    } else {
      start_busy(seconds(takes));
    }
    executions_ = 0;
    const GuestRequest& request = write(0, 8, takes);
    EXPECT_EQ(answer(request, seconds(600)), IoStatus::ok);
    EXPECT_EQ(medium(0), takes);
    EXPECT_LE(request.took(), seconds(takes) * 2 + milliseconds(500));
    reactor_.run_for(seconds(660));  // what was learned is forgotten
  }
}

TEST_F(BusyTargetTest, ItLearnsSoThatTheNextCommandIsNotGivenUpAtAll) {
  start_busy(seconds(3));
  ASSERT_EQ(answer(write(0, 8, 1), seconds(60)), IoStatus::ok);
  executions_ = 0;
  for (int i = 0; i < 5; ++i) {
    const GuestRequest& request = write(0, 8, 2 + i);
    EXPECT_EQ(answer(request, seconds(60)), IoStatus::ok);
    EXPECT_LE(request.took(), milliseconds(3100));
  }
  EXPECT_EQ(executions_, 5U);
  EXPECT_EQ(sessions_[0]->login_epoch(), 2U);
}

TEST_F(BusyTargetTest, WhatItHasLearnedEndsWithTheCable) {
  start_busy(seconds(3));
  ASSERT_EQ(answer(write(0, 8, 1), seconds(60)), IoStatus::ok);
  works_for_ = Duration::zero();
  drop_silently(0);
  const TimePoint cut = reactor_.now();
  GuestRequest& lost = write(8, 8, 2);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(30)));
  EXPECT_LE(reactor_.now() - cut, milliseconds(2500));
  reactor_.network().set_dropping(portal_address(0), false);
  EXPECT_EQ(answer(lost), IoStatus::ok);
}

TEST_F(BusyTargetTest, ACableThatIsCutWhileItIsWaitedForIsNoticed) {
  start_busy(seconds(25));
  GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(40));  // it works on the second one
  ASSERT_TRUE(pending(request));
  ASSERT_EQ(path(0).session_state, SessionState::logged_in);
  drop_silently(0);
  const TimePoint cut = reactor_.now();
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(30)));
  EXPECT_LE(reactor_.now() - cut, milliseconds(2000));
  reactor_.network().set_dropping(portal_address(0), false);
  works_for_ = Duration::zero();
  EXPECT_EQ(answer(request, seconds(60)), IoStatus::ok);
}

// Another path may be better: the first time nothing has changed.
TEST_F(BusyTargetTest, AControllerThatHangsIsLeftForTheOtherAfterPathTimeout) {
  start({1, 2});
  reactor_.network().set_held(portal_address(0), SimDirection::to_client, true);
  std::uint64_t sector = 0;
  GuestRequest& request = at_path(0, [&]() -> GuestRequest& { return write(sector += 8, 8, 3); });
  reactor_.run_for(milliseconds(2500));
  EXPECT_EQ(path(0).state, PathState::down);
  reactor_.network().set_held(portal_address(0), SimDirection::to_client, false);
  EXPECT_EQ(answer(request), IoStatus::ok);
}

// It answers pings, and takes a little more than command_timeout for the command.
TEST_F(BusyTargetTest, ACommandThatTakesLongerThanCommandTimeoutIsAnsweredToo) {
  start({1});
  SimFault slow;
  slow.matches = any_io();
  slow.count = 0;
  slow.extra_delay = seconds(35);
  target_->inject(slow);
  const GuestRequest& request = write(0, 8, 7);
  EXPECT_EQ(answer(request, seconds(600)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
  EXPECT_LE(request.took(), seconds(70));
  EXPECT_EQ(up(), 1U);
}

// What was given up once says nothing of the next command.
TEST_F(BusyTargetTest, TheNextCommandHasTheUsualTime) {
  start({1});
  SimFault slow;
  slow.matches = any_io();
  slow.count = 2;
  slow.extra_delay = seconds(35);
  target_->inject(slow);
  ASSERT_EQ(answer(write(0, 8, 7), seconds(600)), IoStatus::ok);
  SimFault stuck;
  stuck.matches = any_io();
  stuck.answer = false;
  target_->inject(stuck);
  const GuestRequest& request = write(0, 8, 8);
  EXPECT_EQ(answer(request, seconds(600)), IoStatus::ok);
  EXPECT_LE(request.took(), seconds(35)) << "it is aborted after command_timeout";
}

struct SlowCommand {
  BlockOperation operation = BlockOperation::read;
  bool answers_pings = false;
  std::vector<std::uint16_t> portals = {};
};

std::vector<SlowCommand> slow_commands() {
  std::vector<SlowCommand> all;
  for (const auto operation :
       {BlockOperation::read, BlockOperation::write, BlockOperation::flush}) {
    for (const bool answers_pings : {true, false}) {
      for (const auto& portals : std::vector<std::vector<std::uint16_t>>{{1}, {1, 1}, {1, 2}}) {
        all.push_back({operation, answers_pings, portals});
      }
    }
  }
  return all;
}
std::string name_of(const testing::TestParamInfo<SlowCommand>& test) {
  std::string name = std::string(to_string(test.param.operation)) +
                     (test.param.answers_pings ? "_with_pings" : "_without_pings");
  for (const std::uint16_t tag : test.param.portals) {
    name += "_" + std::to_string(tag);
  }
  return name;
}

class SlowCommandTest : public BusyTargetTest, public testing::WithParamInterface<SlowCommand> {
 protected:
  static bool is_of(BlockOperation operation, const SimCommand& command) {
    switch (operation) {
      case BlockOperation::read:
        return is_read(command);
      case BlockOperation::write:
        return is_write(command);
      case BlockOperation::flush:
        return command.cdb[0] == scsi_operation::kSynchronizeCache10 ||
               command.cdb[0] == scsi_operation::kSynchronizeCache16;
      case BlockOperation::discard:
        return command.cdb[0] == scsi_operation::kUnmap;
    }
    return false;
  }
  void take_so_long(Duration time) {
    SimFault fault;
    fault.count = 0;
    fault.execute = true;
    fault.extra_delay = GetParam().answers_pings ? time : Duration::zero();
    fault.matches = [this, time](const SimCommand& command) {
      const bool matches = is_of(GetParam().operation, command);
      if (matches && !GetParam().answers_pings) {
        target_->set_hung(true);
        const std::uint32_t work = ++executions_;
        reactor_.schedule(time, [this, work] { target_->set_hung(work != executions_); });
      }
      return matches && GetParam().answers_pings;
    };
    target_->inject(fault);
  }
};

TEST_P(SlowCommandTest, IsAnsweredWithinTwiceTheTimeThatTheTargetNeeds) {
  start(GetParam().portals);
  for (const int takes : {1, 2, 4, 7, 12, 15, 16, 25, 29, 30, 31, 35, 39, 40, 41, 45, 46, 50, 60}) {
    SCOPED_TRACE(takes);
    take_so_long(seconds(takes));
    const GuestRequest& request =
        submit(GetParam().operation, 0, GetParam().operation == BlockOperation::flush ? 0 : 8, 7);
    EXPECT_EQ(answer(request, seconds(600)), IoStatus::ok);
    EXPECT_LE(request.took(), seconds(takes) * 2 + milliseconds(1500));
    target_->clear_faults();
    reactor_.run_for(seconds(720));  // what was learned is forgotten
    ASSERT_EQ(up(), GetParam().portals.size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, SlowCommandTest, testing::ValuesIn(slow_commands()), name_of);

}  // namespace
}  // namespace iscsi_blkback
