// A LUN that answers each command, but slowly, or with "not now": it is identified, because what
// counts is the time of each answer.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class SlowLun : public MultipathTest {
 protected:
  static bool is_page(const SimCommand& command, std::uint8_t page) {
    return command.cdb[0] == scsi_operation::kInquiry && (command.cdb[1] & 1) != 0 &&
           command.cdb[2] == page;
  }
  static SimFault page_fault(std::uint8_t page) {
    SimFault fault;
    fault.matches = [page](const SimCommand& command) { return is_page(command, page); };
    fault.count = 0;
    return fault;
  }
  static SimFault aborted_page(std::uint8_t page) {
    SimFault fault = page_fault(page);
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(SenseKey::aborted_command, 0x0000);
    return fault;
  }
  static SimFault busy_page(std::uint8_t page) {
    SimFault fault = page_fault(page);
    fault.status = ScsiStatus::busy;
    return fault;
  }
};

// An identification has a dozen commands: 5 s for all of them were never enough.
TEST_F(SlowLun, IsServedHoweverLongAllOfItsAnswersTakeTogether) {
  target_options_.command_delay = milliseconds(4900);  // checker_timeout: 5 s
  start_target({1});
  start_device(false);
  ASSERT_TRUE(wait_for_up(1, seconds(80)));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

TEST_F(SlowLun, ThatTellsOfAChangeGoesOnServingItsGuest) {
  start({1});
  target_->options().command_delay = milliseconds(600);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(milliseconds(1));
  ASSERT_EQ(path(0).state, PathState::pending);
  EXPECT_EQ(answer(write(0, 8, 2), seconds(15)), IoStatus::ok);
}

TEST_F(SlowLun, ThatDoesNotAnswerOneOfTheQuestionsIsDownAndSaysWhich) {
  start_target({1});
  SimFault silent = page_fault(0x83);
  silent.answer = false;
  target_->inject(silent);
  target_->options().command_delay = milliseconds(500);
  start_device(false);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(8)));
  EXPECT_EQ(path(0).last_error, "INQUIRY of page 0x83 is not answered");
  EXPECT_EQ(path(0).finding, CheckerFinding::timeout);
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(1, seconds(60)));
}

// Each change has it start over: its path is not "just being asked" for ever.
TEST_F(SlowLun, ThatChangesAgainAndAgainIsDownInTheEnd) {
  start({1});
  target_->options().command_delay = milliseconds(600);
  const TimePoint began = reactor_.now();
  const auto is_down = [this] { return path(0).state == PathState::down; };
  do {
    target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  } while (!reactor_.run_until(is_down, milliseconds(900)) &&
           reactor_.now() - began < seconds(300));
  EXPECT_TRUE(is_down());
  EXPECT_GE(reactor_.now() - began, seconds(80)) << "16 answers of 5 s each may be needed";
  EXPECT_LE(reactor_.now() - began, seconds(150));
  EXPECT_EQ(path(0).last_error,
            "the logical unit answers, but has not told in all this time who it is");
  EXPECT_TRUE(wait_for_up(1, seconds(60)));
}

// For good, and in words of "not now".
TEST_F(SlowLun, APageThatIsNotNeededIsDoneWithoutWhenTheTargetIsAlwaysBusyWithIt) {
  start_target({1});
  target_->inject(aborted_page(0xb1));
  target_->inject(busy_page(0xb2));
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(3))) << path(0).last_error;
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(answer(write(0, 8, 2), seconds(3)), IoStatus::ok) << "in use, too";
}

TEST_F(SlowLun, APageThatIsNeededIsAskedForAgainLaterWhenTheTargetIsBusyWithIt) {
  for (const std::uint8_t page : {std::uint8_t{0x83}, std::uint8_t{0xb0}}) {
    SCOPED_TRACE(static_cast<int>(page));
    if (!device_) {
      start_target({1});
      target_->inject(busy_page(page));
      start_device(false);
    } else {
      target_->inject(busy_page(page));
      target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
    }
    ASSERT_TRUE(
        reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(15)));
    EXPECT_NE(path(0).last_error.find("refuses to be identified: SCSI status 0x08"),
              std::string::npos)
        << path(0).last_error;
    target_->clear_faults();
    EXPECT_TRUE(wait_for_up(1, seconds(15)));
  }
}

// BUSY at the first question, and once more at the last: each is asked past.
TEST_F(SlowLun, WhatWasBusyOnceIsAskedAgainLaterInTheSameIdentification) {
  lun_options_.max_transfer_blocks = 16;
  target_options_.command_delay = milliseconds(1500);
  start_target({1});
  SimFault busy;
  busy.count = 1;
  busy.status = ScsiStatus::busy;
  busy.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kTestUnitReady;
  };
  target_->inject(busy);
  busy.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kServiceActionIn16;
  };
  target_->inject(busy);
  std::uint32_t short_forms = 0;
  SimFault count = busy;
  count.count = 0;
  count.matches = [&short_forms](const SimCommand& command) {
    short_forms += command.cdb[0] == scsi_operation::kReadCapacity10 ? 1 : 0;
    return false;
  };
  target_->inject(count);
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(40))) << path(0).last_error;
  EXPECT_EQ(short_forms, 0U);
  target_->clear_faults();
}

}  // namespace
}  // namespace iscsi_blkback
