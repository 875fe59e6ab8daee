// How paths are asked whether they work, and what becomes of one that fails again and again.
#include "multipath/path/path_checker.h"

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class PathCheckerTest : public MultipathTest {
 protected:
  // Counts commands of a kind at a portal from now on, without touching them.
  std::shared_ptr<int> count(std::size_t portal, std::uint8_t operation) {
    auto counted = std::make_shared<int>(0);
    SimFault fault;
    fault.count = 0;
    fault.matches = [=](const SimCommand& command) {
      *counted += command.portal == portal && command.cdb[0] == operation ? 1 : 0;
      return false;
    };
    target_->inject(fault);
    return counted;
  }
  static SimFault hang(std::uint8_t operation, std::size_t portal) {
    SimFault fault;
    fault.count = 0;
    fault.answer = false;
    fault.matches = [=](const SimCommand& command) {
      return command.portal == portal && command.cdb[0] == operation;
    };
    return fault;
  }
};

TEST(PathCheckerKind, Names) {
  for (const PathCheckerKind kind : {PathCheckerKind::tur, PathCheckerKind::directio,
                                     PathCheckerKind::rdac, PathCheckerKind::none}) {
    EXPECT_EQ(path_checker_named(to_string(kind)), kind);
  }
  EXPECT_EQ(path_checker_named("readsector0"), PathCheckerKind::directio);
  EXPECT_EQ(path_checker_named("emc_clariion"), std::nullopt);
}

TEST_F(PathCheckerTest, ChecksOfAnIdlePathAreFurtherAndFurtherApart) {
  start();
  const auto checks = count(0, scsi_operation::kTestUnitReady);
  reactor_.run_for(seconds(16));
  EXPECT_EQ(*checks, 2) << "after 5 s and 10 s more";
  reactor_.run_for(seconds(600));
  EXPECT_GE(*checks, 30);
  EXPECT_LE(*checks, 36) << "then every 20 s";
}

TEST_F(PathCheckerTest, ABusyPathIsNeverAsked) {
  start({1});
  const auto checks = count(0, scsi_operation::kTestUnitReady);
  for (int second = 0; second < 120; ++second) {
    EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
    reactor_.run_for(seconds(1));
  }
  EXPECT_EQ(*checks, 0);
}

TEST_F(PathCheckerTest, ChecksComeUpToATenthEarlyAndNotInStep) {
  start({1});
  std::vector<TimePoint> times;
  SimFault recorded;
  recorded.count = 0;
  recorded.matches = [&](const SimCommand& command) {
    if (command.cdb[0] == scsi_operation::kTestUnitReady) {
      times.push_back(reactor_.now());
    }
    return false;
  };
  target_->inject(recorded);
  reactor_.run_for(seconds(1200));
  target_->clear_faults();
  ASSERT_GT(times.size(), 50U);
  Duration shortest = Duration::max();
  Duration longest{};
  for (std::size_t at = 3; at < times.size(); ++at) {
    shortest = std::min(shortest, times[at] - times[at - 1]);
    longest = std::max(longest, times[at] - times[at - 1]);
  }
  EXPECT_GE(shortest, milliseconds(17990));
  EXPECT_LE(longest, milliseconds(20010));
  EXPECT_GE(longest - shortest, milliseconds(1000));
}

TEST_F(PathCheckerTest, NoneAsksNothing) {
  options_.path_checker = PathCheckerKind::none;
  options_.capacity_polling_interval = milliseconds(0);
  start();
  const auto before = lun_->counters;
  reactor_.run_for(seconds(300));
  EXPECT_EQ(lun_->counters.others, before.others);
  EXPECT_EQ(lun_->counters.reads, before.reads);
}

TEST_F(PathCheckerTest, APathThatHangsDelaysNoOther) {
  start();
  const auto others = count(1, scsi_operation::kTestUnitReady);
  target_->inject(hang(scsi_operation::kTestUnitReady, 0));
  ASSERT_TRUE(wait_for_up(1, seconds(11)));
  EXPECT_EQ(path(0).state, PathState::down);
  EXPECT_NE(path(0).last_error.find("TEST UNIT READY is not answered"), std::string::npos);
  EXPECT_EQ(path(1).state, PathState::up);
  EXPECT_GE(*others, 1);
  EXPECT_EQ(answer(read(0, 8), milliseconds(10)), IoStatus::ok);
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(2, seconds(60)));
}

TEST_F(PathCheckerTest, DirectioReadsTheFirstBlock) {
  options_.path_checker = PathCheckerKind::directio;
  lun_options_.block_bytes = 4096;
  start();
  const auto reads = count(0, scsi_operation::kRead16);
  const auto ready = count(0, scsi_operation::kTestUnitReady);
  SimFault seen;
  seen.count = 0;
  seen.matches = [](const SimCommand& command) {
    EXPECT_TRUE(!is_read(command) || command.cdb == read16_cdb(0, 1));
    return false;
  };
  target_->inject(seen);
  reactor_.run_for(seconds(60));
  EXPECT_GE(*reads, 3);
  EXPECT_EQ(*ready, 0);
  EXPECT_EQ(up(), 2U);
}

// As LIO does: TEST UNIT READY is GOOD whatever is behind it.
TEST_F(PathCheckerTest, DirectioFindsAPathThatCannotReadAndTakesItBackWhenItCan) {
  options_.path_checker = PathCheckerKind::directio;
  start();
  SimFault broken = sense_fault(SenseKey::hardware_error, 0x4400, 0);
  broken.matches = [](const SimCommand& command) {
    return command.portal == 0 && is_read(command);
  };
  target_->inject(broken);
  ASSERT_TRUE(wait_for_up(1, seconds(11)));
  EXPECT_EQ(path(0).state, PathState::down);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(path(0).state, PathState::down);
  target_->clear_faults();
  EXPECT_TRUE(wait_for_up(2, seconds(3)));
}

TEST_F(PathCheckerTest, RdacAsksForItsPage) {
  options_.path_checker = PathCheckerKind::rdac;
  start();
  int inquiries = 0;
  SimFault seen;
  seen.count = 0;
  seen.matches = [&inquiries](const SimCommand& command) {
    inquiries +=
        command.portal == 0 && command.cdb[0] == scsi_operation::kInquiry && command.cdb[2] == 0xc9
            ? 1
            : 0;
    return false;
  };
  target_->inject(seen);
  reactor_.run_for(seconds(60));
  EXPECT_GE(inquiries, 3);
  EXPECT_EQ(up(), 2U) << "a LUN that has no such page answers, too";
  target_->inject(hang(scsi_operation::kInquiry, 0));
  EXPECT_TRUE(wait_for_up(1, seconds(30)));
  target_->clear_faults();
}

// ---- marginal paths

class MarginalPathTest : public PathCheckerTest {
 protected:
  void fail_once(std::size_t portal) {
    reactor_.run_for(seconds(4));  // a session that ends shortly after its login is another matter
    const std::size_t before = up();
    cut(portal);
    ASSERT_TRUE(wait_for_up(before - 1, seconds(3)));
    restore(portal);
    ASSERT_TRUE(wait_for_up(before, seconds(5)));
  }
  // Requests that each of two paths gets out of twenty.
  std::pair<std::uint64_t, std::uint64_t> shares() {
    const auto first = path(0).requests;
    const auto second = path(1).requests;
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
    }
    return {path(0).requests - first, path(1).requests - second};
  }
};

TEST_F(MarginalPathTest, APathThatFailsTwiceInAMinuteIsALastResort) {
  start();
  fail_once(0);
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(shares(), std::pair(std::uint64_t{10}, std::uint64_t{10}));
  fail_once(0);
  EXPECT_GT(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(path(0).state, PathState::up);
  EXPECT_EQ(shares(), std::pair(std::uint64_t{0}, std::uint64_t{20}));

  cut(1);
  EXPECT_EQ(answer(read(0, 8), milliseconds(50)), IoStatus::ok) << "there is no other";
  restore(1);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(shares(), std::pair(std::uint64_t{0}, std::uint64_t{20}));

  reactor_.run_for(seconds(61));
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(shares(), std::pair(std::uint64_t{10}, std::uint64_t{10}));
}

TEST_F(MarginalPathTest, TheHoldDownDoublesWhileItGoesOnFailing) {
  start();
  fail_once(0);
  fail_once(0);
  EXPECT_LE(path(0).marginal_for, seconds(60));
  fail_once(0);
  EXPECT_GT(path(0).marginal_for, seconds(110));
  EXPECT_LE(path(0).marginal_for, seconds(120));
  for (int i = 0; i < 20; ++i) {
    fail_once(0);
  }
  EXPECT_GT(path(0).marginal_for, seconds(60 * 31));
  EXPECT_LE(path(0).marginal_for, seconds(60 * 32)) << "and is bounded";
  reactor_.run_for(seconds(60 * 32 + 1));
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
}

TEST_F(MarginalPathTest, FailuresFarApartAreNone) {
  start();
  for (int i = 0; i < 5; ++i) {
    fail_once(0);
    reactor_.run_for(seconds(61));
    EXPECT_EQ(path(0).marginal_for, Duration::zero());
  }
}

TEST_F(MarginalPathTest, ItCanBeSwitchedOff) {
  options_.marginal.double_failed_time = milliseconds(0);
  start();
  for (int i = 0; i < 5; ++i) {
    fail_once(0);
  }
  EXPECT_EQ(shares(), std::pair(std::uint64_t{10}, std::uint64_t{10}));
}

// An array whose controllers change their roles again and again.
TEST_F(MarginalPathTest, AChangeOfTheAccessStateIsNoFailure) {
  lun_options_.tpgs = 1;
  lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
                              {.tag = 2, .state = AccessState::active_optimized, .ports = {2}}};
  start_target({1, 2});
  start_device();
  for (const AccessState away :
       {AccessState::standby, AccessState::unavailable, AccessState::offline}) {
    lun_->options.port_groups[0].state = away;
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
    }
    reactor_.run_for(seconds(1));
    EXPECT_EQ(up(), 1U);
    lun_->options.port_groups[0].state = AccessState::active_optimized;
    ASSERT_TRUE(wait_for_up(2));
    EXPECT_EQ(path(0).marginal_for, Duration::zero());
  }
}

// As EqualLogic does to balance its ports.
TEST_F(MarginalPathTest, ALogoutThatTheTargetAsksForIsNoFailure) {
  start();
  for (int i = 0; i < 5; ++i) {
    target_->send_async_message(AsyncEvent::logout_request, 0, 0, 3);
    ASSERT_TRUE(wait_for_up(0, seconds(3)));
    ASSERT_TRUE(wait_for_up(2, seconds(10)));
  }
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(shares(), std::pair(std::uint64_t{10}, std::uint64_t{10}));
}

// Too short for path_timeout.
TEST_F(MarginalPathTest, APathThatGoesSilentAgainAndAgainIsALastResort) {
  start({1, 2});
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(path(0).marginal_for, Duration::zero());
    drop_silently(0);
    GuestRequest& waiting = at_path(0, [this]() -> GuestRequest& { return read(0, 8); });
    EXPECT_EQ(answer(waiting, seconds(1)), IoStatus::ok);
    reactor_.run_for(milliseconds(400));
    reactor_.network().set_dropping(portal_address(0), false);
    ASSERT_TRUE(reactor_.run_until([this] { return !path(0).suspect; }, seconds(2)));
    ASSERT_EQ(path(0).state, PathState::up);
    ASSERT_TRUE(reactor_.run_until([this] { return path(0).in_flight == 0; }, seconds(2)));
  }
  EXPECT_GT(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(shares(), std::pair(std::uint64_t{0}, std::uint64_t{20}));
}

TEST_F(MarginalPathTest, ASilenceThatEndsAPathIsOneFailure) {
  start({1, 2});
  drop_silently(0);
  at_path(0, [this]() -> GuestRequest& { return read(0, 8); });
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(5)));
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
  reactor_.network().set_dropping(portal_address(0), false);
  ASSERT_TRUE(wait_for_up(2));
  fail_once(0);
  EXPECT_GT(path(0).marginal_for, Duration::zero());
}

TEST_F(MarginalPathTest, ATargetThatIsSilentAsAWholeIsNoFailureOfItsPaths) {
  start({1, 2});
  for (int i = 0; i < 4; ++i) {
    drop_silently(0);
    drop_silently(1);
    at_path(0, [this]() -> GuestRequest& { return read(0, 8); });
    at_path(1, [this]() -> GuestRequest& { return read(0, 8); });
    reactor_.run_for(milliseconds(600));
    reactor_.network().set_dropping(portal_address(0), false);
    reactor_.network().set_dropping(portal_address(1), false);
    ASSERT_TRUE(reactor_.run_until([this] { return device_->snapshot().in_flight == 0; }));
    ASSERT_EQ(up(), 2U);
  }
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(path(1).marginal_for, Duration::zero());
}

TEST_F(MarginalPathTest, APathOnWhichCommandsFailAgainAndAgainIsALastResort) {
  start({1, 2});
  SimFault garbled = sense_fault(SenseKey::aborted_command, 0x4703, 0);
  garbled.matches = io_at(0);
  garbled.count = 2 * MarginalPath::kErrorsOfAFailure;
  target_->inject(garbled);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(answer(read(0, 8), seconds(5)), IoStatus::ok);
  }
  EXPECT_EQ(path(0).state, PathState::up);
  EXPECT_GT(path(0).marginal_for, Duration::zero());
  EXPECT_EQ(path(1).marginal_for, Duration::zero());
  EXPECT_EQ(shares(), std::pair(std::uint64_t{0}, std::uint64_t{20}));
}

TEST_F(MarginalPathTest, ErrorsOfTheMediumAreNotThePaths) {
  start({1, 2});
  SimFault bad = sense_fault(SenseKey::medium_error, 0x1100, 0);
  bad.matches = io_at(0);
  target_->inject(bad);
  for (int i = 0; i < 40; ++i) {
    static_cast<void>(answer(read(0, 8), seconds(5)));
  }
  target_->clear_faults();
  EXPECT_EQ(path(0).marginal_for, Duration::zero());
}

// ---- many paths

class ManyPaths : public MultipathTest, public testing::WithParamInterface<std::size_t> {};

TEST_P(ManyPaths, AllAreUsedAndTheLastOneServesAlone) {
  start(std::vector<std::uint16_t>(GetParam(), 1));
  ASSERT_EQ(up(), GetParam());
  for (std::size_t i = 0; i < GetParam() * 4; ++i) {
    EXPECT_EQ(answer(write(i * 8, 8, 1)), IoStatus::ok);
  }
  for (std::size_t index = 0; index < GetParam(); ++index) {
    EXPECT_EQ(path(index).requests, 4U);
  }
  for (std::size_t index = 0; index + 1 < GetParam(); ++index) {
    refuse(index);
  }
  for (std::size_t i = 0; i < 8; ++i) {
    const GuestRequest& request = write(i * 8, 8, 2);
    EXPECT_EQ(answer(request, milliseconds(50)), IoStatus::ok);
  }
  for (std::size_t index = 0; index + 1 < GetParam(); ++index) {
    accept(index);
  }
  EXPECT_TRUE(wait_for_up(GetParam()));
}

TEST_P(ManyPaths, AllButOneAreDeadAtTheStart) {
  start_target(std::vector<std::uint16_t>(GetParam(), 1));
  for (std::size_t index = 0; index + 1 < GetParam(); ++index) {
    drop_silently(index);
  }
  start_device(false);
  EXPECT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, milliseconds(100)));
  const GuestRequest& request = write(0, 8, 2);
  EXPECT_EQ(answer(request, milliseconds(50)), IoStatus::ok);
}

INSTANTIATE_TEST_SUITE_P(Counts, ManyPaths, testing::Values(1, 2, 4, 8, 32));

}  // namespace
}  // namespace iscsi_blkback
