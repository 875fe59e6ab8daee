// Ghost paths are made the active side: explicit ALUA and RDAC, over the real engine, in virtual
// time.
#include "multipath/path_activation.h"

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint8_t kImplicit = 1;
constexpr std::uint8_t kExplicit = 2;

bool is_set_port_groups(const SimCommand& command) {
  return command.cdb[0] == scsi_operation::kMaintenanceOut;
}

// Portal 0 is port 1 of target port group 1, which is active; portal 1 is port 2 of group 2,
// standby.
class PathActivationTest : public MultipathTest {
 protected:
  void use_alua(std::uint8_t tpgs) {
    lun_options_.tpgs = tpgs;
    lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
                                {.tag = 2, .state = AccessState::standby, .ports = {2}}};
  }
  // One side active and the other ghost.
  void start_both() {
    start_target({1, 2});
    start_device(false);
    ASSERT_TRUE(reactor_.run_until([this] { return up() == 1 && ghost_paths() == 1; }, seconds(5)));
  }
  [[nodiscard]] int ghost_paths() const {
    const MultipathSnapshot now = device_->snapshot();
    return static_cast<int>(
        std::count_if(now.paths.begin(), now.paths.end(),
                      [](const PathSnapshot& one) { return one.state == PathState::ghost; }));
  }
  // Requests of any sort that a fault meets.
  SimFault at_activation(SenseKey key, std::uint16_t code, std::uint32_t count) {
    SimFault fault;
    fault.matches = is_set_port_groups;
    fault.count = count;
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(key, code);
    return fault;
  }
  void use_rdac() {
    lun_options_.rdac = true;
    options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  }
};

// Between two tries the LUN stops telling of port groups; the second try is none then. (Found by
// the simulation.)
TEST_F(PathActivationTest, AnActivationThatIsNoLongerPossibleIsGivenUpAndTriedAgainLater) {
  use_alua(kExplicit);
  start_both();
  target_->inject(at_activation(SenseKey::not_ready, 0x0401, 1));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(milliseconds(500));
  SimFault silent;
  silent.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kMaintenanceIn;
  };
  silent.count = 0;
  silent.status = ScsiStatus::check_condition;
  silent.sense = make_sense(SenseKey::illegal_request, 0x2000);
  target_->inject(silent);
  target_->add_unit_attention(0x2a06);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  target_->clear_faults();
  EXPECT_EQ(answer(request, seconds(30)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
}

TEST_F(PathActivationTest, AStandbyPathIsActivatedWhenNothingElseIsLeft) {
  use_alua(kExplicit);
  start_both();
  EXPECT_EQ(device_->snapshot().hardware_handler, "1 alua");
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(50));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
  EXPECT_EQ(lun_->options.port_groups[1].state, AccessState::active_optimized);
  EXPECT_EQ(path(1).state, PathState::up);
}

// A transition of the active side that ends in an error is the end of that side.
TEST_F(PathActivationTest, AStandbyPathIsActivatedWhenATransitionOfTheOtherSideFails) {
  use_alua(kExplicit);
  options_.failback = Failback{};
  start_both();
  lun_->options.port_groups[0].state = AccessState::transitioning;
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(2));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U) << "it may come back";
  SimFault broken;
  broken.count = 0;
  broken.matches = [](const SimCommand& command) {
    return command.portal == 0 && command.cdb[0] != scsi_operation::kInquiry;
  };
  broken.status = ScsiStatus::check_condition;
  broken.sense = make_sense(SenseKey::not_ready, 0x0403);
  target_->inject(broken);
  EXPECT_EQ(answer(request, seconds(5)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
  target_->clear_faults();
}

TEST_F(PathActivationTest, RequestsWaitForItEvenWithNoPathRetryFail) {
  use_alua(kExplicit);
  options_.no_path_retry = milliseconds(0);
  start_both();
  target_->inject(at_activation(SenseKey::not_ready, 0x040a, 3));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(30)), IoStatus::ok);
  EXPECT_GE(request.took(), seconds(6)) << "three times pg_init_delay";
}

TEST_F(PathActivationTest, PgInitDelayIsTheTimeBetweenTries) {
  use_alua(kExplicit);
  options_.pg_init_delay = milliseconds(100);
  start_both();
  target_->inject(at_activation(SenseKey::not_ready, 0x040a, 3));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_GE(request.took(), milliseconds(300));
}

TEST_F(PathActivationTest, AfterPgInitRetriesThePathIsNone) {
  use_alua(kExplicit);
  options_.no_path_retry = milliseconds(0);
  options_.pg_init_retries = 2;
  options_.pg_init_delay = milliseconds(100);
  start_both();
  target_->inject(at_activation(SenseKey::not_ready, 0x040a, 3));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(5)), IoStatus::no_path);
  EXPECT_GE(request.took(), milliseconds(300));
  // But it is tried again later, and then the array agrees.
  EXPECT_TRUE(wait_for_up(1, seconds(15)));
}

TEST_F(PathActivationTest, ARefusedActivationEndsTheWaitAtOnce) {
  use_alua(kExplicit);
  options_.no_path_retry = milliseconds(0);
  start_both();
  target_->inject(at_activation(SenseKey::illegal_request, 0x2400, 1));
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::no_path);
}

TEST_F(PathActivationTest, UnitAttentionsDoNotKeepItFromActivating) {
  use_alua(kExplicit);
  start_both();
  target_->inject(at_activation(SenseKey::unit_attention, 0x2a06, 4));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(100));
}

// What the command meets is not only in its way: the LUN behind the standby path is another one.
TEST_F(PathActivationTest, AnAttentionThatItMeetsVerifiesThePath) {
  use_alua(kExplicit);
  start_both();
  target_->inject(at_activation(SenseKey::unit_attention, 0x3f0e, 1));
  cut(0);
  lun_->options.naa_extension = 99;
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_TRUE(
      reactor_.run_until([this] { return path(1).state == PathState::quarantined; }, seconds(1)));
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.writes, 0U);
}

TEST_F(PathActivationTest, ImplicitAluaIsNotTold) {
  use_alua(kImplicit);
  start_both();
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  lun_->options.port_groups[1].state = AccessState::active_optimized;
  EXPECT_EQ(answer(request, seconds(3)), IoStatus::ok);
}

TEST_F(PathActivationTest, AtAttachAStandbyPathWaitsForTheActiveSideFirst) {
  use_alua(kExplicit);
  start_target({1, 2});
  refuse(0);
  start_device(false);
  reactor_.run_for(seconds(4));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  EXPECT_FALSE(device_->ready());
  accept(0);
  ASSERT_TRUE(wait_for_up(1, seconds(3)));
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

TEST_F(PathActivationTest, AtAttachWithStandbyPathsOnlyOneIsActivated) {
  use_alua(kExplicit);
  start_target({1, 2});
  refuse(0);
  start_device(false);
  EXPECT_TRUE(wait_for_up(1, seconds(8)));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
  EXPECT_TRUE(device_->ready());
}

TEST_F(PathActivationTest, ThePathThatIsLostWhileBeingActivatedIsForgotten) {
  use_alua(kExplicit);
  start_both();
  SimFault unanswered;
  unanswered.matches = is_set_port_groups;
  unanswered.answer = false;
  target_->inject(unanswered);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(milliseconds(100));
  cut(1);
  reactor_.run_for(milliseconds(100));
  restore(1);
  EXPECT_EQ(answer(request, seconds(5)), IoStatus::ok);
}

TEST_F(PathActivationTest, ADiskThatIsClosedWhileActivatingWaitsForTheAnswer) {
  use_alua(kExplicit);
  start_both();
  SimFault slow;
  slow.matches = is_set_port_groups;
  slow.extra_delay = milliseconds(300);
  target_->inject(slow);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(milliseconds(100));
  close();
  EXPECT_EQ(request.status, IoStatus::aborted);
}

TEST_F(PathActivationTest, ThePreferredStandbySideIsMadeActive) {
  use_alua(kImplicit | kExplicit);
  lun_options_.port_groups[1].preferred = true;
  start_target({1, 2});
  start_device(false);
  ASSERT_TRUE(wait_for_up(2, seconds(5)));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
  EXPECT_EQ(lun_->options.port_groups[1].state, AccessState::active_optimized);
}

TEST_F(PathActivationTest, RdacMovesTheLunToTheOtherController) {
  use_rdac();
  start_both();
  EXPECT_EQ(device_->snapshot().hardware_handler, "1 rdac");
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(50));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
  EXPECT_EQ(lun_->counters.take_overs, 1U);
}

TEST_F(PathActivationTest, RdacWithFewLunsUsesTheShortPage) {
  use_rdac();
  lun_options_.rdac_max_lun = 31;
  start_both();
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.take_overs, 1U);
}

// The preferred controller of a DS4800: the LUN returns to it when it is back.
TEST_F(PathActivationTest, RdacGivesTheLunBackToThePreferredController) {
  use_rdac();
  start_both();
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  restore(0);
  ASSERT_TRUE(reactor_.run_until([this] { return lun_->options.rdac_owner == 0; }, seconds(10)));
  EXPECT_EQ(answer(write(0, 8, 2), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.take_overs, 2U);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->counters.take_overs, 2U) << "and stays there";
  EXPECT_EQ(path(1).state, PathState::ghost);
}

TEST_F(PathActivationTest, RdacWithFailbackManualLeavesTheLunWhereItIs) {
  use_rdac();
  options_.failback = Failback{};
  start_both();
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  restore(0);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
  EXPECT_EQ(path(0).state, PathState::ghost);
}

// Another host takes the LUN away: this one follows to the controller that has it now.
TEST_F(PathActivationTest, RdacOwnershipThatAnotherHostChangesIsFollowed) {
  use_rdac();
  options_.failback = Failback{};
  start_both();
  lun_->options.rdac_owner = 1;
  EXPECT_EQ(answer(write(0, 8, 1), seconds(10)), IoStatus::ok);
  EXPECT_EQ(device_->snapshot().paths_up(), 1U);
}

}  // namespace
}  // namespace iscsi_blkback
