// What the sides of an array say of themselves (ALUA, RDAC, EMC): how it is followed, and what it
// makes of the paths. Over the real engine and a simulated array, in virtual time.
#include "tests/multipath/groups/path_policy_fixture.h"

namespace iscsi_blkback {
namespace {

class AccessStateTest : public PathPolicyTest {};

TEST_F(AccessStateTest, AluaIsDetectedAndOnlyTheOptimizedSideIsUsed) {
  use_alua();
  start_four();
  EXPECT_EQ(snapshot().prio, "alua");
  EXPECT_EQ(snapshot().path_grouping_policy, "group_by_prio");
  EXPECT_EQ(priorities(), (Ints{50, 50, 10, 10}));
  ASSERT_EQ(snapshot().groups.size(), 2U);
  EXPECT_EQ(snapshot().groups[0].priority, 50);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(AccessStateTest, WithoutAluaAllPathsAreUsed) {
  start_four();
  EXPECT_EQ(snapshot().prio, "const");
  EXPECT_EQ(snapshot().path_grouping_policy, "multibus");
  EXPECT_EQ(spread(), (Ints{3, 3, 3, 3}));
}

TEST_F(AccessStateTest, TheOptimizedSideIsUsedHoweverLateItComes) {
  use_alua();
  start_target({1, 1, 2, 2});
  refuse(0);
  refuse(1);
  start_device(false);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  options_.failback = Failback{};
  accept(0);
  accept(1);
  ASSERT_TRUE(wait_for_up(4));
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(AccessStateTest, AChangeOfAluaStatesIsFollowedAtTheUnitAttention) {
  use_alua();
  start_four();
  set_states(AccessState::active_non_optimized, AccessState::active_optimized);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(AccessStateTest, AChangeOfAluaStatesThatNobodyTellsIsFoundByPolling) {
  use_alua();
  start_four();
  set_states(AccessState::active_non_optimized, AccessState::active_optimized, false);
  reactor_.run_for(seconds(6));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(AccessStateTest, AnAluaFlipDelaysNoRequestBy50Milliseconds) {
  use_alua();
  start_four();
  set_states(AccessState::standby, AccessState::active_optimized);
  for (int i = 0; i < 20; ++i) {
    const GuestRequest& request = write(0, 8, i);
    EXPECT_EQ(answer(request), IoStatus::ok);
    EXPECT_LE(request.took(), milliseconds(50));
  }
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  EXPECT_EQ(path(0).state, PathState::ghost);
}

TEST_F(AccessStateTest, StandbyPathsAreGhostsAndTakeNoRequest) {
  use_alua();
  lun_options_.port_groups[1].state = AccessState::standby;
  start_target({1, 1, 2, 2});
  start_device(false);
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 2 && path(3).state == PathState::ghost; },
                                 seconds(5)));
  EXPECT_EQ(priorities(), (Ints{50, 50, 1, 1}));
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
  set_states(AccessState::active_optimized, AccessState::active_non_optimized);
  EXPECT_TRUE(wait_for_up(4, seconds(2)));
  lose_first_side();
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(AccessStateTest, UnavailablePathsAreFaulty) {
  use_alua();
  start_four();
  set_states(AccessState::active_optimized, AccessState::unavailable, false);
  reactor_.run_for(seconds(6));
  EXPECT_EQ(path(2).state, PathState::down);
  EXPECT_NE(path(2).last_error.find("unavailable"), std::string::npos) << path(2).last_error;
  set_states(AccessState::active_optimized, AccessState::active_non_optimized, false);
  EXPECT_TRUE(wait_for_up(4));
}

TEST_F(AccessStateTest, ATransitionIsPendingAndWaitedForEvenWithNoPathRetryFail) {
  use_alua();
  options_.no_path_retry = milliseconds(0);
  start_four();
  set_states(AccessState::transitioning, AccessState::transitioning, false);
  const GuestRequest& request = write(0, 8, 7);
  reactor_.run_for(seconds(10));
  EXPECT_EQ(path(0).state, PathState::pending);
  EXPECT_TRUE(pending(request));
  set_states(AccessState::active_optimized, AccessState::active_optimized, false);
  EXPECT_EQ(answer(request, seconds(3)), IoStatus::ok);
}

TEST_F(AccessStateTest, ATransitionThatNeverEndsIsNoneAfterAMinute) {
  use_alua();
  options_.no_path_retry = milliseconds(0);
  start_four();
  set_states(AccessState::transitioning, AccessState::transitioning, false);
  const GuestRequest& request = write(0, 8, 7);
  EXPECT_EQ(answer(request, seconds(200)), IoStatus::no_path);
  EXPECT_GT(request.took(), seconds(30));
  EXPECT_EQ(path(0).state, PathState::down);
}

// Whatever the target says of the LUN after the transition has begun.
class BrokenTransitionTest : public AccessStateTest,
                             public testing::WithParamInterface<std::uint16_t> {
 protected:
  // Every path is in transition, and then every command is refused in another way.
  void break_transition() {
    set_states(AccessState::transitioning, AccessState::transitioning, false);
    request_ = &write(0, 8, 7);
    reactor_.run_for(seconds(2));
    ASSERT_EQ(path(0).state, PathState::pending);
    SimFault fault;
    fault.count = 0;
    fault.matches = [this](const SimCommand& command) {
      return command.cdb[0] != scsi_operation::kInquiry && broken_;
    };
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(GetParam() == 0x2500 ? SenseKey::illegal_request : SenseKey::not_ready,
                             GetParam());
    target_->inject(fault);
  }
  void mend() {
    broken_ = false;
    set_states(AccessState::active_optimized, AccessState::active_non_optimized, false);
  }

  bool broken_ = true;
  GuestRequest* request_ = nullptr;
};

TEST_P(BrokenTransitionTest, LeavesThePathDownUntilItWorks) {
  use_alua();
  start_four();
  break_transition();
  EXPECT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(3)))
      << path(0).last_error;
  reactor_.run_for(seconds(120));
  EXPECT_TRUE(pending(*request_));
  mend();
  EXPECT_EQ(answer(*request_, seconds(5)), IoStatus::ok);
  EXPECT_TRUE(wait_for_up(4, seconds(5)));
}

TEST_P(BrokenTransitionTest, EndsTheWaitOfNoPathRetry) {
  use_alua();
  options_.no_path_retry = seconds(5);
  start_four();
  break_transition();
  EXPECT_EQ(answer(*request_, seconds(8)), IoStatus::no_path);
}

INSTANTIATE_TEST_SUITE_P(, BrokenTransitionTest,
                         testing::Values(std::uint16_t{0x0402}, std::uint16_t{0x0403},
                                         std::uint16_t{0x2500}));

TEST_F(AccessStateTest, ATransitionOfWhichNothingIsAnsweredAnyMoreIsNoneAfterAMinute) {
  use_alua();
  session_options_.command_timeout = milliseconds(0);
  options_.no_path_retry = milliseconds(0);
  start_four();
  set_states(AccessState::transitioning, AccessState::transitioning, false);
  const GuestRequest& request = write(0, 8, 7);
  reactor_.run_for(seconds(2));
  SimFault silent;
  silent.count = 0;
  silent.answer = false;
  target_->inject(silent);
  EXPECT_EQ(answer(request, seconds(70)), IoStatus::no_path);
  target_->clear_faults();
}

TEST_F(AccessStateTest, ThePreferredSideIsUsedThoughItIsNotOptimized) {
  use_alua();
  lun_options_.port_groups[1].preferred = true;
  start_four();
  EXPECT_EQ(priorities(), (Ints{50, 50, 90, 90}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(AccessStateTest, ExclusivePrefBitPutsThePreferredOptimizedSideFirst) {
  use_alua();
  lun_options_.port_groups[1] = {
      .tag = 2, .state = AccessState::active_optimized, .preferred = true, .ports = {3, 4}};
  options_.prio =
      make_prioritizer(PrioritizerKind::alua, std::vector<std::string>{"exclusive_pref_bit"})
          .value();
  start_four();
  EXPECT_EQ(priorities(), (Ints{50, 50, 130, 130}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(AccessStateTest, ReportTargetPortGroupsThatIsRefusedLeavesThePathUsable) {
  use_alua();
  start_target({1, 2});
  SimFault refused;
  refused.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kMaintenanceIn;
  };
  refused.count = 0;
  refused.status = ScsiStatus::check_condition;
  refused.sense = make_sense(SenseKey::illegal_request, 0x2000);
  target_->inject(refused);
  start_device();
  EXPECT_EQ(priorities(), (Ints{0, 0}));
  EXPECT_EQ(spread(), (Ints{6, 6}));
}

// Portals 0 and 2 are controller 0, which owns the LUN; 1 and 3 are controller 1.
TEST_F(AccessStateTest, RdacUsesTheOwningControllerAndTheOtherIsGhost) {
  lun_options_.rdac = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start_target({1, 2, 1, 2});
  start_device(false);
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 2 && path(3).state == PathState::ghost; },
                                 seconds(5)));
  EXPECT_EQ(priorities(), (Ints{6, 1, 6, 1}));
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
}

TEST_F(AccessStateTest, RdacThatTransfersByItselfKeepsToItsOwner) {
  lun_options_.rdac = true;
  lun_options_.rdac_automatic_transfer = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
  EXPECT_EQ(lun_->options.rdac_owner, 0);
  cut(0);
  cut(2);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(spread(), (Ints{0, 6, 0, 6}));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
}

TEST_F(AccessStateTest, RdacWithIoshipUsesBothControllersTheOwnerFirst) {
  lun_options_.rdac = true;
  lun_options_.rdac_shared = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  EXPECT_EQ(priorities(), (Ints{14, 9, 14, 9}));
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
}

TEST_F(AccessStateTest, EmcUsesTheDefaultServiceProcessor) {
  lun_options_.emc = true;
  lun_options_.vendor = "DGC";
  lun_options_.emc_owner = lun_options_.emc_default = 1;
  options_.prio = make_prioritizer(PrioritizerKind::emc, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  EXPECT_EQ(priorities(), (Ints{1, 4, 1, 4}));
  EXPECT_EQ(spread(), (Ints{0, 6, 0, 6}));
}

// ---- what is asked without need

class FollowedAccessTest : public PathPolicyTest {
 protected:
  // Commands of a kind from now on, by portal.
  std::shared_ptr<Ints> count(std::uint8_t operation) {
    auto counted = std::make_shared<Ints>(target_options_.portals.size());
    SimFault none;
    none.count = 0;
    none.matches = [=](const SimCommand& command) {
      (*counted)[command.portal] += command.cdb[0] == operation ? 1 : 0;
      return false;
    };
    target_->inject(none);
    return counted;
  }
  // The active side is busy.
  void be_busy(int time_s) {
    for (int second = 0; second < time_s; ++second) {
      spread(4);
      reactor_.run_for(seconds(1));
    }
  }
};

TEST_F(FollowedAccessTest, AluaStatesAreAskedForFurtherAndFurtherApart) {
  use_alua();
  start_four();
  const auto asked = count(scsi_operation::kMaintenanceIn);
  reactor_.run_for(seconds(16));
  EXPECT_EQ(*asked, (Ints{2, 0, 2, 0})) << "one path of each group, after 5 s and 10 s more";
  reactor_.run_for(seconds(600));
  EXPECT_GE((*asked)[0], 30);
  EXPECT_LE((*asked)[0], 37);
  EXPECT_EQ((*asked)[1], 0);
  set_states(AccessState::active_non_optimized, AccessState::active_optimized, false);
  reactor_.run_for(seconds(21));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
}

TEST_F(FollowedAccessTest, ABusyAluaPathGetsNoTestUnitReady) {
  use_alua();
  start_four();
  const auto ready = count(scsi_operation::kTestUnitReady);
  const auto asked = count(scsi_operation::kMaintenanceIn);
  const auto capacity = count(scsi_operation::kServiceActionIn16);
  be_busy(120);
  EXPECT_EQ((*ready)[0] + (*ready)[1], 0);
  EXPECT_GE((*asked)[0], 6);
  EXPECT_LE((*asked)[0], 9);
  EXPECT_EQ((*asked)[1], 0);
  EXPECT_GE((*capacity)[0], 3);
  EXPECT_LE((*capacity)[0], 5);
  EXPECT_EQ((*capacity)[1] + (*capacity)[2] + (*capacity)[3], 0) << "one for the target";
}

TEST_F(FollowedAccessTest, ABusyRdacPathGetsNoTestUnitReady) {
  lun_options_.rdac = true;
  lun_options_.rdac_shared = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  const auto ready = count(scsi_operation::kTestUnitReady);
  const auto asked = count(scsi_operation::kInquiry);
  be_busy(120);
  EXPECT_EQ((*ready)[0] + (*ready)[2], 0);
  EXPECT_GE((*asked)[0], 6) << "each controller speaks for itself";
  EXPECT_LE((*asked)[0], 9);
}

TEST_F(FollowedAccessTest, APathThatDoesNotAnswerLeavesItToTheOther) {
  use_alua();
  session_options_.command_timeout = milliseconds(0);
  start_four();
  SimFault hangs;
  hangs.matches = [](const SimCommand& command) {
    return command.portal % 2 == 0 && command.cdb[0] == scsi_operation::kMaintenanceIn;
  };
  hangs.count = 0;
  hangs.answer = false;
  target_->inject(hangs);
  set_states(AccessState::active_non_optimized, AccessState::active_optimized, false);
  reactor_.run_for(seconds(16));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
  target_->clear_faults();
}

}  // namespace
}  // namespace iscsi_blkback
