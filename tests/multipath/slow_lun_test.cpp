// A LUN that answers each command, but slowly, or with "not now": it is identified, because what
// counts is the time of each answer.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

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
  static SimFault silent(std::function<bool(const SimCommand&)> matches) {
    SimFault fault;
    fault.matches = std::move(matches);
    fault.count = 0;
    fault.answer = false;
    return fault;
  }
  static SimFault silent_page(std::uint8_t page) {
    return silent([page](const SimCommand& command) { return is_page(command, page); });
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

  static bool asks_for_access(const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kMaintenanceIn;
  }
  // Nothing aborts what it does not answer.
  void start_with_alua() {
    session_options_.command_timeout = milliseconds(0);
    lun_options_.tpgs = 1;
    lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}}};
    start({1});
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

class SilentPage : public SlowLun, public testing::WithParamInterface<std::uint8_t> {};

TEST_P(SilentPage, KeepsThePathDownThatSaysWhichItIs) {
  start_target({1});
  target_->inject(silent_page(GetParam()));
  target_->options().command_delay = milliseconds(500);
  start_device(false);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(10)));
  EXPECT_EQ(path(0).last_error,
            fmt::format("INQUIRY of page 0x{:02X} is not answered", GetParam()));
  EXPECT_EQ(path(0).finding, CheckerFinding::timeout);
  reactor_.run_for(seconds(300));
  EXPECT_EQ(up(), 0U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U) << "command_timeout has aborted them";
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(1, seconds(60)));
}

// Who the LUN is, what it has and how much it takes with one command.
INSTANTIATE_TEST_SUITE_P(Pages, SilentPage, testing::Values(0x00, 0x80, 0x83, 0xb0));

// 5 s (checker_timeout) are over long before 30 (command_timeout).
TEST_F(SlowLun, APageThatIsNotNeededAndNeverAnsweredIsDoneWithout) {
  lun_options_.max_transfer_blocks = 16;
  start_target({1});
  for (const std::uint8_t page : {std::uint8_t{0xb1}, std::uint8_t{0xb2}}) {
    target_->inject(silent_page(page));
  }
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(11))) << path(0).last_error;
  EXPECT_EQ(answer(write(0, 64, 1)), IoStatus::ok) << "the page of limits has been read";
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(answer(write(0, 8, 2), seconds(1)), IoStatus::ok) << "it is not asked again";
  reactor_.run_for(seconds(60));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  EXPECT_EQ(path(0).state, PathState::up) << path(0).last_error;
}

TEST_F(SlowLun, WhatWasDoneWithoutIsAskedAgainAfterTheNextLogin) {
  start_target({1});
  std::uint32_t asked = 0;
  SimFault count = page_fault(0xb1);
  count.matches = [&asked](const SimCommand& command) {
    asked += is_page(command, 0xb1) ? 1U : 0U;
    return false;
  };
  target_->inject(silent_page(0xb1));
  start_device(false);
  ASSERT_TRUE(wait_for_up(1, seconds(6)));
  target_->clear_faults();
  target_->inject(count);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(asked, 0U);
  cut(0);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state != PathState::up; }, seconds(1)));
  restore(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(asked, 1U);
  target_->clear_faults();
}

// Whether it has a write cache is not known then: flushes are sent.
TEST_F(SlowLun, ThatNeverAnswersModeSenseIsServed) {
  lun_options_.write_cache = false;
  start_target({1});
  target_->inject(silent([](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kModeSense6 ||
           command.cdb[0] == scsi_operation::kModeSense10;
  }));
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(11))) << path(0).last_error;
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

// Without a cache no flush is needed.
TEST_F(SlowLun, ThatAnswersTheLongFormOfModeSenseOnlyTellsOfItsCache) {
  lun_options_.write_cache = false;
  lun_options_.unknown_operations = {scsi_operation::kSynchronizeCache10,
                                     scsi_operation::kSynchronizeCache16};
  start_target({1});
  target_->inject(silent(
      [](const SimCommand& command) { return command.cdb[0] == scsi_operation::kModeSense6; }));
  start_device(false);
  ASSERT_TRUE(wait_for_up(1, seconds(6))) << path(0).last_error;
  EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok);
}

// Without command_timeout nothing aborts what it does not answer: it takes room in the session's
// window, where other disks' commands may have to wait for it.
TEST_F(SlowLun, QuestionsThatAreNeverAnsweredDoNotPileUp) {
  session_options_.command_timeout = milliseconds(0);
  start_target({1});
  std::uint64_t losses = 0;
  std::uint32_t asked = 0;  // in this login
  std::uint32_t most = 0;
  target_->inject(silent([&](const SimCommand& command) {
    if (std::exchange(losses, sessions_[0]->statistics().connection_losses) != losses) {
      asked = 0;
    }
    const bool matches = is_page(command, 0x83);
    asked += matches ? 1U : 0U;
    most = std::max(most, asked);
    return matches;
  }));
  start_device(false);
  reactor_.run_for(seconds(600));
  EXPECT_GE(losses, 2U);
  EXPECT_EQ(most, 9U);
}

// The page of a controller's own hangs, whereas the LUN is served: the access is read again later.
TEST_F(SlowLun, AnAccessStateThatIsNotAnsweredIsAskedForAgain) {
  start_with_alua();
  SimFault once = silent([](const SimCommand& command) { return asks_for_access(command); });
  once.count = 1;
  target_->inject(once);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a06);
  reactor_.run_for(seconds(1));
  lun_->options.port_groups[0].state = AccessState::standby;
  EXPECT_TRUE(
      reactor_.run_until([this] { return path(0).state == PathState::ghost; }, seconds(60)));
}

// It serves the guest all the same.
TEST_F(SlowLun, WhoseAccessStateIsNeverToldKeepsItsSession) {
  start_with_alua();
  std::uint32_t asked = 0;
  target_->inject(silent([&asked](const SimCommand& command) {
    const bool matches = asks_for_access(command);
    asked += matches ? 1U : 0U;
    return matches;
  }));
  for (int i = 0; i < 100; ++i) {
    target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a06);
    reactor_.run_for(seconds(6));
  }
  EXPECT_EQ(asked, 4U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  EXPECT_EQ(answer(write(0, 8, 1), milliseconds(20)), IoStatus::ok);
  target_->clear_faults();
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

// ---- by nature

// Each command takes so long, those that ask who the LUN is and whether it works as well.
class SlowByNature : public SlowLun, public testing::WithParamInterface<std::pair<int, bool>> {
 protected:
  void start_slow() {
    const auto [takes, answers_pings] = GetParam();
    if (answers_pings) {
      target_options_.command_delay = seconds(takes);
      start_target({1});
    } else {
      start_target({1});
      SimFault works;
      works.count = 0;
      // What is scheduled outlives this part of the fixture.
      works.matches = [this, time = seconds(takes),
                       works = std::make_shared<std::uint32_t>(0)](const SimCommand&) {
        target_->set_hung(true);
        reactor_.schedule(time, [target = target_.get(), works, work = ++*works] {
          target->set_hung(work != *works);
        });
        return false;
      };
      target_->inject(works);
    }
    start_device(false);
  }
};

TEST_P(SlowByNature, IsServedInTheEndAndStaysSo) {
  start_slow();
  const Duration takes = seconds(GetParam().first);
  ASSERT_TRUE(wait_for_up(1, 60 * takes + std::chrono::minutes(3))) << path(0).last_error;
  for (int i = 0; i < 3; ++i) {
    const GuestRequest& request = write(0, 8, 1 + i);
    EXPECT_EQ(answer(request, 20 * takes), IoStatus::ok);
    reactor_.run_for(std::chrono::minutes(2));
    // One that answers no pings while it works has more to do than its work with looks at the path.
    if (GetParam().second) {
      EXPECT_LE(request.took(), 3 * takes + milliseconds(500)) << "one may be under way";
      EXPECT_EQ(path(0).state, PathState::up) << path(0).last_error;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seconds, SlowByNature,
                         testing::Values(std::pair{1, true}, std::pair{4, true}, std::pair{6, true},
                                         std::pair{8, true}, std::pair{11, true},
                                         std::pair{20, true}, std::pair{29, true},
                                         std::pair{31, true}, std::pair{45, true},
                                         std::pair{60, true}, std::pair{1, false},
                                         std::pair{3, false}, std::pair{6, false}));

// For ten minutes.
TEST_F(SlowLun, ThatIsSlowNoMoreIsWaitedForAsAnyOther) {
  target_options_.command_delay = seconds(8);
  start_target({1});
  start_device(false);
  ASSERT_TRUE(wait_for_up(1, seconds(600)));
  target_->options().command_delay = milliseconds(1);
  for (const bool forgotten : {false, true}) {
    TimePoint asked{};
    SimFault stuck = silent([&](const SimCommand& command) {
      const bool is_check = command.cdb[0] == scsi_operation::kTestUnitReady;
      asked = is_check && asked == TimePoint{} ? reactor_.now() : asked;
      return is_check;
    });
    reactor_.run_for(forgotten ? seconds(700) : seconds(60));
    ASSERT_EQ(up(), 1U);
    target_->inject(stuck);
    ASSERT_TRUE(reactor_.run_until([this] { return up() == 0; }, seconds(60)));
    EXPECT_GE(reactor_.now() - asked, forgotten ? milliseconds(4990) : milliseconds(15990));
    EXPECT_LE(reactor_.now() - asked, forgotten ? milliseconds(5100) : milliseconds(16100));
    target_->clear_faults();
    ASSERT_TRUE(wait_for_up(1, seconds(300)));
  }
}

}  // namespace
}  // namespace iscsi_blkback
