// Ghost paths are made the active side: explicit ALUA and RDAC, over the real engine, in virtual
// time.
#include "multipath/path/path_activation.h"

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
  void start_both() { start_with({1, 2}, 1, 1); }
  // A portal for each of these groups; so many of their paths come up, so many are ghosts.
  void start_with(const std::vector<std::uint16_t>& groups, std::size_t active, int ghosts) {
    start_target(groups);
    start_device(false);
    ASSERT_TRUE(reactor_.run_until([=, this] { return up() == active && ghost_paths() == ghosts; },
                                   seconds(5)));
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
  // The MODE SELECT that moves the LUN, as often as it comes.
  static SimFault at_take_over(std::size_t portal, std::uint16_t code) {
    SimFault fault;
    fault.matches = [portal](const SimCommand& command) {
      return command.portal == portal && command.cdb[0] == scsi_operation::kModeSelect10;
    };
    fault.count = 0;
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(SenseKey::illegal_request, code);
    return fault;
  }
  static SimFault inquiries_at(std::size_t portal) {
    SimFault fault;
    fault.matches = [portal](const SimCommand& command) {
      return command.portal == portal && command.cdb[0] == scsi_operation::kInquiry;
    };
    fault.count = 0;
    return fault;
  }
  void use_rdac() {
    lun_options_.rdac = true;
    options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  }
  // The preferred controller is cut off, so that the other one has taken the LUN over.
  void start_and_lose_the_preferred_controller() {
    use_rdac();
    start_both();
    cut(0);
    EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
    ASSERT_EQ(lun_->options.rdac_owner, 1);
  }
  [[nodiscard]] bool the_preferred_controller_has_the_lun(Duration within) {
    return reactor_.run_until([this] { return lun_->options.rdac_owner == 0; }, within);
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

// With failback immediate (the default) a side in transition is not the worse one either.
TEST_F(PathActivationTest, ATransitionOfTheActiveSideIsWaitedFor) {
  use_alua(kExplicit);
  start_both();
  lun_->options.port_groups[0].state = AccessState::transitioning;
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(2));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  lun_->options.port_groups[0].state = AccessState::active_optimized;
  EXPECT_EQ(answer(request, seconds(5)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

// The controllers have swapped their roles, and nobody was told.
TEST_F(PathActivationTest, TheSideThatIsActiveAlreadyIsUsedAndNoneActivated) {
  use_alua(kExplicit);
  options_.no_path_retry = milliseconds(0);
  start_both();
  for (const std::size_t active : {1U, 0U, 1U}) {
    lun_->options.port_groups[active].state = AccessState::active_optimized;
    lun_->options.port_groups[1 - active].state = AccessState::standby;
    const GuestRequest& request = write(0, 8, 1);
    EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
    EXPECT_LE(request.took(), milliseconds(50));
    reactor_.run_for(seconds(5));
    EXPECT_EQ(path(active).state, PathState::up);
    EXPECT_EQ(path(1 - active).state, PathState::ghost);
  }
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

// ... and the one that was active before is cut off, so that it cannot tell.
TEST_F(PathActivationTest, AStandbyPathThatHasBecomeActiveIsNotActivated) {
  use_alua(kExplicit);
  start_both();
  lun_->options.port_groups[0].state = AccessState::active_non_optimized;
  lun_->options.port_groups[1].state = AccessState::active_non_optimized;
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

TEST_F(PathActivationTest, AStandbyPathIsActivatedAtOnceWhenTheOtherSideIsUnavailable) {
  use_alua(kExplicit);
  start_both();
  lun_->options.port_groups[0].state = AccessState::unavailable;
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(50));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
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
  int told = 0;
  SimFault seen;
  seen.count = 0;
  seen.matches = [&told](const SimCommand& command) {
    told += is_set_port_groups(command) ? 1 : 0;
    return false;
  };
  target_->inject(seen);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(30));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(told, 0);
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
  const TimePoint began = reactor_.now();
  close();
  EXPECT_EQ(request.status, IoStatus::aborted);
  EXPECT_GE(reactor_.now() - began, milliseconds(200));
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
  lun_options_.rdac_max_lun = 31;
  start_and_lose_the_preferred_controller();
  EXPECT_EQ(lun_->counters.take_overs, 1U);
}

// The preferred controller of a DS4800: the LUN returns to it when it is back.
TEST_F(PathActivationTest, RdacGivesTheLunBackToThePreferredController) {
  start_and_lose_the_preferred_controller();
  restore(0);
  ASSERT_TRUE(the_preferred_controller_has_the_lun(seconds(10)));
  EXPECT_EQ(answer(write(0, 8, 2), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.take_overs, 2U);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->counters.take_overs, 2U) << "and stays there";
  EXPECT_EQ(path(1).state, PathState::ghost);
}

TEST_F(PathActivationTest, RdacWithFailbackManualLeavesTheLunWhereItIs) {
  options_.failback = Failback{};
  start_and_lose_the_preferred_controller();
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

// A DS4800 controller that is still starting refuses for longer than pg_init_retries last.
TEST_F(PathActivationTest, RdacGivesTheLunBackToAControllerThatRefusesAtFirst) {
  start_and_lose_the_preferred_controller();
  target_->inject(at_take_over(0, 0x9136));
  restore(0);
  reactor_.run_for(seconds(60));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  target_->clear_faults();
  EXPECT_TRUE(the_preferred_controller_has_the_lun(seconds(30)));
}

TEST_F(PathActivationTest, FailbackAfterSecondsTriesARefusedSideAgainToo) {
  options_.failback = Failback{Failback::Kind::after, seconds(20)};
  start_and_lose_the_preferred_controller();
  target_->inject(at_take_over(0, 0x2400));
  restore(0);
  reactor_.run_for(seconds(25));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
  target_->clear_faults();
  EXPECT_TRUE(the_preferred_controller_has_the_lun(seconds(40)));
}

// Portals 0 and 2 lead to the preferred controller.
TEST_F(PathActivationTest, TheOtherPathOfThePreferredControllerIsAskedWhenOneIsRefused) {
  use_rdac();
  start_with({1, 2, 1}, 2, 1);
  cut(0);
  cut(2);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  ASSERT_EQ(lun_->options.rdac_owner, 1);
  target_->inject(at_take_over(0, 0x2400));
  restore(0);
  restore(2);
  EXPECT_TRUE(the_preferred_controller_has_the_lun(seconds(5)));
}

// ---- a disk that is suspended (the source of a migration) leaves the LUN to the destination

TEST_F(PathActivationTest, ASuspendedDiskDoesNotFailBackToASideThatHasToBeActivated) {
  use_alua(kExplicit);
  start_both();
  device_->set_guest({GuestState::suspended});
  lun_->options.port_groups[1].preferred = true;
  reactor_.run_for(seconds(60));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  device_->set_guest({GuestState::runs});
  reactor_.run_for(seconds(60));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
}

TEST_F(PathActivationTest, AResumedDiskActivatesWhatIsLeft) {
  use_alua(kExplicit);
  start_both();
  device_->set_guest({GuestState::suspended});
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(5));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
}

TEST_F(PathActivationTest, ASuspendedDiskDoesNotTakeTheLunBackAndAResumedOneDoes) {
  start_and_lose_the_preferred_controller();
  device_->set_guest({GuestState::suspended});
  restore(0);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->options.rdac_owner, 1);
  device_->set_guest({GuestState::runs});
  EXPECT_TRUE(the_preferred_controller_has_the_lun(seconds(1)));
}

TEST_F(PathActivationTest, AnActivationIsNotTriedAgainWhileSuspended) {
  use_alua(kExplicit);
  start_both();
  target_->inject(at_activation(SenseKey::not_ready, 0x040a, 1));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(milliseconds(500));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
}

// The target's window is full with a question that it has not answered, so that the activation is
// still in the session.
class UnsentActivation : public PathActivationTest {
 protected:
  void start_with_an_unsent_activation() {
    use_alua(kExplicit);
    target_options_.window = 1;
    start_both();
    SimFault hold;
    hold.matches = [this](const SimCommand& command) {
      arrived_ += is_set_port_groups(command) ? 1 : 0;
      return command.portal == 1;
    };
    hold.count = 0;
    hold.hold = true;
    hold.execute = true;
    target_->inject(hold);
    cut(0);
    write(0, 8, 1);
    reactor_.run_for(seconds(1));
    ASSERT_EQ(target_->held(), 1U);
    ASSERT_EQ(arrived_, 0);
  }
  void answer_what_is_there() {
    for (int round = 0; round < 10; ++round) {
      target_->release_held();
      reactor_.run_for(milliseconds(2));
    }
  }

  int arrived_ = 0;
};

TEST_F(UnsentActivation, IsSentWhenTheWindowOpens) {
  start_with_an_unsent_activation();
  answer_what_is_there();
  EXPECT_EQ(arrived_, 1);
  target_->clear_faults();
}

TEST_F(UnsentActivation, IsNotSentAfterASuspend) {
  start_with_an_unsent_activation();
  device_->set_guest({GuestState::suspended});
  answer_what_is_there();
  EXPECT_EQ(arrived_, 0);
  target_->clear_faults();
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(*requests_[0], seconds(1)), IoStatus::ok);
}

TEST_F(UnsentActivation, IsNotSentAfterAClose) {
  start_with_an_unsent_activation();
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  answer_what_is_there();
  EXPECT_EQ(arrived_, 0);
  target_->clear_faults();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(5)));
  device_.reset();
}

// Its answer would have it sent once more.
TEST_F(PathActivationTest, AnActivationIsNotSentAgainAfterASuspend) {
  use_alua(kExplicit);
  start_both();
  SimFault attention = at_activation(SenseKey::unit_attention, 0x2a01, 1);
  attention.extra_delay = milliseconds(100);
  target_->inject(attention);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(milliseconds(50));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(30));
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
}

// ---- one path that hangs delays no other

// Portals 0 and 2 are the active side, which goes; at portal 2 nobody answers INQUIRY.
TEST_F(PathActivationTest, APathThatHangsWhileIdentifiedDelaysNoActivation) {
  use_alua(kExplicit);
  lun_options_.port_groups[0].ports = {1, 3};
  start_with({1, 2, 1}, 2, 1);
  cut(2);
  ASSERT_TRUE(wait_for_up(1));
  SimFault hangs = inquiries_at(2);
  hangs.answer = false;
  target_->inject(hangs);
  restore(2);
  ASSERT_TRUE(reactor_.run_until(
      [this] { return path(2).session_state == SessionState::logged_in; }, seconds(3)));
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(250));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
}

TEST_F(PathActivationTest, APathThatIsJustBeingIdentifiedIsWaitedFor) {
  use_alua(kExplicit);
  lun_options_.port_groups[0].ports = {1, 3};
  start_with({1, 2, 1}, 2, 1);
  cut(2);
  ASSERT_TRUE(wait_for_up(1));
  reactor_.network().set_latency(portal_address(2), milliseconds(4));  // of a dozen commands
  restore(2);
  ASSERT_TRUE(reactor_.run_until(
      [this] { return path(2).session_state == SessionState::logged_in; }, seconds(3)));
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

// Portals 1 and 2 are the standby side; no command times out by itself.
class HangingActivationTest : public PathActivationTest {
 protected:
  void start_with_two_ghosts() {
    session_options_.command_timeout = milliseconds(0);
    use_alua(kExplicit);
    lun_options_.port_groups[1].ports = {2, 3};
    start_with({1, 2, 2}, 1, 2);
  }
  SimFault at_activation_of(std::size_t portal) {
    SimFault fault;
    fault.matches = [this, portal](const SimCommand& command) {
      const bool mine = command.portal == portal && is_set_port_groups(command);
      asked_ += mine ? 1 : 0;
      return mine;
    };
    fault.count = 0;
    return fault;
  }
  int asked_ = 0;
};

TEST_F(HangingActivationTest, AGhostThatDoesNotSayHowItIsServedLeavesItToTheOther) {
  start_with_two_ghosts();
  SimFault hangs;
  hangs.matches = [](const SimCommand& command) {
    return command.portal == 1 && command.cdb[0] == scsi_operation::kMaintenanceIn;
  };
  hangs.answer = false;
  target_->inject(hangs);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(300));
  EXPECT_EQ(lun_->counters.set_port_groups, 1U);
}

TEST_F(HangingActivationTest, TheNextGhostIsAskedAfterCheckerTimeout) {
  start_with_two_ghosts();
  SimFault unanswered = at_activation_of(1);
  unanswered.answer = false;
  target_->inject(unanswered);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  EXPECT_EQ(answer(request, seconds(6)), IoStatus::ok);
  EXPECT_GE(request.took(), options_.checker_timeout);
  EXPECT_EQ(asked_, 1);
}

TEST_F(HangingActivationTest, ALateAnswerDisturbsNobody) {
  start_with_two_ghosts();
  SimFault late = at_activation_of(1);
  late.hold = true;
  late.execute = true;
  target_->inject(late);
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(6)), IoStatus::ok);
  target_->release_held();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(answer(write(8, 8, i), milliseconds(50)), IoStatus::ok);
  }
  EXPECT_EQ(up(), 2U);
}

TEST_F(HangingActivationTest, NoPathRetryDoesNotWaitForIt) {
  options_.no_path_retry = milliseconds(0);
  start_with_two_ghosts();
  SimFault unanswered = at_activation_of(1);
  unanswered.matches = is_set_port_groups;
  unanswered.answer = false;
  target_->inject(unanswered);
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 1), seconds(11)), IoStatus::no_path);
}

// However long that lasts, a target gets one of them at a time.
TEST_F(HangingActivationTest, APathIsNotAskedAgainBeforeItHasAnswered) {
  start_with_two_ghosts();
  cut(2);
  SimFault unanswered = at_activation_of(1);
  unanswered.hold = true;
  unanswered.execute = true;
  target_->inject(unanswered);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(120));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(asked_, 1);
  target_->release_held();
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok) << "late, and not too late";
}

TEST_F(HangingActivationTest, ARemovedPathTakesItsActivationWithIt) {
  start_with_two_ghosts();
  SimFault unanswered = at_activation_of(1);
  unanswered.answer = false;
  target_->inject(unanswered);
  cut(0);
  const GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(1));
  ASSERT_TRUE(device_->remove_path(*sessions_[1], 0));
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok) << "by the other one";
  EXPECT_TRUE(reactor_.run_until([this] { return device_->snapshot().leaving == 0; }, seconds(60)));
}

}  // namespace
}  // namespace iscsi_blkback
