// Groups and priorities of a disk over the real engine and a simulated array, in virtual time.
#include "multipath/path_policies.h"

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

TEST(PathPolicies, ALunWithAluaIsGroupedByPriority) {
  LogicalUnitIdentity identity;
  identity.tpgs = 1;
  const PathPolicies policies = decide_policies({}, nullptr, &identity);
  EXPECT_EQ(policies.path_grouping_policy, PathGroupingPolicy::group_by_prio);
  EXPECT_EQ(policies.prio.kind, PrioritizerKind::alua);
  EXPECT_EQ(policies.failback.kind, Failback::Kind::immediate);
}

TEST(PathPolicies, ALunWithoutAluaIsOneGroup) {
  const LogicalUnitIdentity identity;
  const PathPolicies policies = decide_policies({}, nullptr, &identity);
  EXPECT_EQ(policies.path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(policies.prio.kind, PrioritizerKind::constant);
  EXPECT_EQ(policies.failback.kind, Failback::Kind::manual);
}

TEST(PathPolicies, WhatIsSetHoldsAgainstTableAndDetection) {
  LogicalUnitIdentity identity;
  identity.tpgs = 3;
  identity.vendor = "NETAPP";
  PathPolicySettings settings;
  settings.path_grouping_policy = PathGroupingPolicy::failover;
  ArrayRow row;
  row.vendor = "NETAPP";
  row.policies.path_grouping_policy = PathGroupingPolicy::multibus;
  row.policies.path_selector = PathSelectorKind::service_time;
  const ArrayTable table = {row};
  const PathPolicies policies = decide_policies(settings, &table, &identity);
  EXPECT_EQ(policies.path_grouping_policy, PathGroupingPolicy::failover);
  EXPECT_EQ(policies.path_selector, PathSelectorKind::service_time);
  EXPECT_EQ(policies.prio.kind, PrioritizerKind::alua);
}

TEST(PathPolicies, ALaterRowThatFitsOverrulesAnEarlierOne) {
  LogicalUnitIdentity identity;
  identity.vendor = "DELL";
  identity.product = "MD32xxi";
  identity.revision = "0784";
  ArrayRow any;
  any.policies.rr_min_io = 5;
  any.policies.path_selector = PathSelectorKind::queue_length;
  ArrayRow fitting;
  fitting.vendor = "DELL";
  fitting.product = "MD3?xxi*";
  fitting.revision = "07*";
  fitting.policies.rr_min_io = 9;
  ArrayRow other;
  other.product = "MD36xxi";
  other.policies.rr_min_io = 11;
  const ArrayTable table = {any, fitting, other};
  const PathPolicies policies = decide_policies({}, &table, &identity);
  EXPECT_EQ(policies.rr_min_io, 9U);
  EXPECT_EQ(policies.path_selector, PathSelectorKind::queue_length);
}

TEST(PathPolicies, FailbackHasMultipathConfsWords) {
  for (const char* word : {"manual", "immediate", "followover", "1", "3600"}) {
    const auto failback = parse_failback(word);
    ASSERT_TRUE(failback) << word;
    EXPECT_EQ(to_string(*failback), word);
  }
  for (const char* word : {"", "0", "3601", "-1", "10s", "Manual"}) {
    EXPECT_FALSE(parse_failback(word)) << word;
  }
}

// Four portals: 0 and 1 are ports 1 and 2 of target port group 1 (active/optimized), 2 and 3 are
// ports 3 and 4 of group 2 (active/non-optimized).
class PathPolicyTest : public MultipathTest {
 protected:
  void use_alua(std::uint8_t tpgs = 1) {
    lun_options_.tpgs = tpgs;
    lun_options_.port_groups = {
        {.tag = 1, .state = AccessState::active_optimized, .ports = {1, 2}},
        {.tag = 2, .state = AccessState::active_non_optimized, .ports = {3, 4}}};
  }
  void start_four() { start({1, 1, 2, 2}); }
  void set_states(AccessState first, AccessState second, bool tell = true) {
    lun_->options.port_groups[0].state = first;
    lun_->options.port_groups[1].state = second;
    if (tell) {
      target_->add_unit_attention(0x2a06);
    }
  }
  // How many of the next reads each portal gets.
  std::vector<int> spread(int reads = 12) {
    std::vector<int> counts(target_options_.portals.size());
    for (int i = 0; i < reads; ++i) {
      std::vector<std::uint64_t> before;
      for (std::size_t at = 0; at < counts.size(); ++at) {
        before.push_back(path(at).requests);
      }
      EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
      for (std::size_t at = 0; at < counts.size(); ++at) {
        counts[at] += static_cast<int>(path(at).requests - before[at]);
      }
    }
    return counts;
  }
  [[nodiscard]] MultipathSnapshot snapshot() const { return device_->snapshot(); }
  [[nodiscard]] std::vector<int> priorities() const {
    std::vector<int> result;
    for (const PathSnapshot& one : snapshot().paths) {
      result.push_back(one.priority);
    }
    return result;
  }
  void lose_first_side() {
    cut(0);
    cut(1);
    ASSERT_TRUE(wait_for_up(2));
  }
  bool first_side_back() {
    restore(0);
    restore(1);
    return wait_for_up(4);
  }
};

using Ints = std::vector<int>;

TEST_F(PathPolicyTest, AluaIsDetectedAndOnlyTheOptimizedSideIsUsed) {
  use_alua();
  start_four();
  EXPECT_EQ(snapshot().prio, "alua");
  EXPECT_EQ(snapshot().path_grouping_policy, "group_by_prio");
  EXPECT_EQ(priorities(), (Ints{50, 50, 10, 10}));
  ASSERT_EQ(snapshot().groups.size(), 2U);
  EXPECT_EQ(snapshot().groups[0].priority, 50);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(PathPolicyTest, WithoutAluaAllPathsAreUsed) {
  start_four();
  EXPECT_EQ(snapshot().prio, "const");
  EXPECT_EQ(snapshot().path_grouping_policy, "multibus");
  EXPECT_EQ(spread(), (Ints{3, 3, 3, 3}));
}

TEST_F(PathPolicyTest, TheOptimizedSideIsUsedHoweverLateItComes) {
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

TEST_F(PathPolicyTest, AChangeOfAluaStatesIsFollowedAtTheUnitAttention) {
  use_alua();
  start_four();
  set_states(AccessState::active_non_optimized, AccessState::active_optimized);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(PathPolicyTest, AChangeOfAluaStatesThatNobodyTellsIsFoundByPolling) {
  use_alua();
  start_four();
  set_states(AccessState::active_non_optimized, AccessState::active_optimized, false);
  reactor_.run_for(seconds(6));
  EXPECT_EQ(priorities(), (Ints{10, 10, 50, 50}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(PathPolicyTest, AnAluaFlipDelaysNoRequestBy50Milliseconds) {
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

TEST_F(PathPolicyTest, ASilentPathIsLeftForTheOtherGroupBeforeItHasFailed) {
  lun_options_.tpgs = 1;
  lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
                              {.tag = 2, .state = AccessState::active_non_optimized, .ports = {2}}};
  start({1, 2});
  EXPECT_EQ(spread(4), (Ints{4, 0}));
  drop_silently(0);
  read(0, 8);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).suspect; }, seconds(2)));
  EXPECT_EQ(path(0).state, PathState::up);
  const GuestRequest& request = read(8, 8);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  EXPECT_LE(request.took(), milliseconds(20));
  EXPECT_EQ(path(0).state, PathState::up) << "it is only silent yet";
  EXPECT_EQ(snapshot().active_group, 0U) << "and its group still the one in use";
  reactor_.network().set_dropping(portal_address(0), false);
  reactor_.run_for(seconds(5));
  ASSERT_TRUE(wait_for_up(2));
}

TEST_F(PathPolicyTest, StandbyPathsAreGhostsAndTakeNoRequest) {
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

TEST_F(PathPolicyTest, UnavailablePathsAreFaulty) {
  use_alua();
  start_four();
  set_states(AccessState::active_optimized, AccessState::unavailable, false);
  reactor_.run_for(seconds(6));
  EXPECT_EQ(path(2).state, PathState::down);
  EXPECT_NE(path(2).last_error.find("unavailable"), std::string::npos) << path(2).last_error;
  set_states(AccessState::active_optimized, AccessState::active_non_optimized, false);
  EXPECT_TRUE(wait_for_up(4));
}

TEST_F(PathPolicyTest, ATransitionIsPendingAndWaitedForEvenWithNoPathRetryFail) {
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

TEST_F(PathPolicyTest, ATransitionThatNeverEndsIsNoneAfterAMinute) {
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
class BrokenTransitionTest : public PathPolicyTest,
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

TEST_F(PathPolicyTest, ATransitionOfWhichNothingIsAnsweredAnyMoreIsNoneAfterAMinute) {
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

TEST_F(PathPolicyTest, ThePreferredSideIsUsedThoughItIsNotOptimized) {
  use_alua();
  lun_options_.port_groups[1].preferred = true;
  start_four();
  EXPECT_EQ(priorities(), (Ints{50, 50, 90, 90}));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
}

TEST_F(PathPolicyTest, ExclusivePrefBitPutsThePreferredOptimizedSideFirst) {
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

TEST_F(PathPolicyTest, MultibusUsesNonOptimizedPathsToo) {
  use_alua();
  options_.path_grouping_policy = PathGroupingPolicy::multibus;
  start_four();
  EXPECT_EQ(snapshot().groups.size(), 1U);
  EXPECT_EQ(snapshot().groups[0].priority, 30);
  EXPECT_EQ(spread(), (Ints{3, 3, 3, 3}));
}

TEST_F(PathPolicyTest, FailoverUsesTheBestPathAlone) {
  use_alua();
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  start_four();
  EXPECT_EQ(snapshot().groups.size(), 4U);
  EXPECT_EQ(spread(), (Ints{12, 0, 0, 0}));
  cut(0);
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
}

TEST_F(PathPolicyTest, GroupByTpgKeepsEqualGroupsApart) {
  use_alua();
  lun_options_.port_groups[1].state = AccessState::active_optimized;
  options_.path_grouping_policy = PathGroupingPolicy::group_by_tpg;
  start_four();
  EXPECT_EQ(snapshot().groups.size(), 2U);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(PathPolicyTest, GroupBySerialGroupsByTheSerialNumberOfThePath) {
  lun_options_.serials_of_ports = {{1, "CTRL-A"}, {2, "CTRL-B"}, {3, "CTRL-A"}, {4, "CTRL-B"}};
  options_.path_grouping_policy = PathGroupingPolicy::group_by_serial;
  start_four();
  EXPECT_EQ(snapshot().groups.size(), 2U);
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
}

TEST_F(PathPolicyTest, WeightedpathPrefersByPortal) {
  options_.prio = make_prioritizer(PrioritizerKind::weighted,
                                   std::vector<std::string>{"portal 10.0.0.3 20", "portal * 10"})
                      .value();
  start_four();
  EXPECT_EQ(snapshot().prio, "weightedpath");
  EXPECT_EQ(priorities(), (Ints{10, 10, 20, 10}));
  EXPECT_EQ(spread(), (Ints{0, 0, 12, 0}));
}

TEST_F(PathPolicyTest, IetUsesThePreferredPortalWhileItIsThere) {
  options_.prio = make_prioritizer(PrioritizerKind::preferred_portal,
                                   std::vector<std::string>{"preferredip=10.0.0.2"})
                      .value();
  options_.failback = Failback{Failback::Kind::immediate, {}};
  start_four();
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
  cut(1);
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(spread(), (Ints{4, 0, 4, 4}));
  restore(1);
  ASSERT_TRUE(wait_for_up(4));
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
}

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

TEST_F(PathPolicyTest, RrWeightPrioritiesSharesByPriority) {
  use_alua();
  options_.path_grouping_policy = PathGroupingPolicy::multibus;
  options_.rr_weight = RrWeight::priorities;
  start_four();
  EXPECT_EQ(spread(120), (Ints{50, 50, 10, 10}));
}

TEST_F(PathPolicyTest, PathWeightsShareTheBytesOfServiceTime) {
  options_.path_selector = PathSelectorKind::service_time;
  options_.path_weights = {parse_path_rule("portal 10.0.0.1 4", 100).value()};
  start({1, 1});
  for (int i = 0; i < 40; ++i) {
    read(0, 8);
  }
  EXPECT_EQ(path(0).in_flight, 32U);
  EXPECT_EQ(path(1).in_flight, 8U);
}

TEST_F(PathPolicyTest, FailbackManualStaysOnTheOtherSide) {
  use_alua();
  options_.failback = Failback{};
  start_four();
  lose_first_side();
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  ASSERT_TRUE(first_side_back());
  reactor_.run_for(seconds(60));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  EXPECT_EQ(snapshot().failback, "manual");
  EXPECT_EQ(snapshot().active_group, 1U);
}

TEST_F(PathPolicyTest, FailbackImmediateReturnsWithTheFirstPath) {
  use_alua();
  options_.failback = Failback{Failback::Kind::immediate, {}};
  start_four();
  lose_first_side();
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  restore(1);
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
  EXPECT_EQ(snapshot().group_switches, 2U);
}

TEST_F(PathPolicyTest, FailbackAfterSecondsWaitsForQuiet) {
  use_alua();
  options_.failback = Failback{Failback::Kind::after, seconds(30)};
  options_.marginal.double_failed_time = {};  // else a path lost twice would be a last resort
  start_four();
  lose_first_side();
  ASSERT_TRUE(first_side_back());
  reactor_.run_for(seconds(20));
  cut(1);  // a path lost starts it anew
  ASSERT_TRUE(wait_for_up(3));
  restore(1);
  ASSERT_TRUE(wait_for_up(4));
  reactor_.run_for(seconds(25));
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  reactor_.run_for(seconds(10));
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0}));
}

TEST_F(PathPolicyTest, FailbackFollowoverReturnsOnlyWithTheFirstPathOfTheGroup) {
  use_alua();
  options_.failback = Failback{Failback::Kind::followover, {}};
  start_four();
  lose_first_side();
  restore(0);
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(spread(), (Ints{12, 0, 0, 0})) << "all of them had been down";
  restore(1);
  ASSERT_TRUE(wait_for_up(4));
  set_states(AccessState::active_non_optimized, AccessState::active_optimized, false);
  reactor_.run_for(seconds(6));
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0})) << "no path has come up";
}

// Two paths, each a group. The one in use is verified, and is up again in a moment.
class VerifiedGroupTest : public PathPolicyTest, public testing::WithParamInterface<std::string> {
 protected:
  void start_two() {
    options_.path_grouping_policy = PathGroupingPolicy::failover;
    options_.failback = parse_failback(GetParam()).value();
    start({1, 2});
    ASSERT_EQ(spread(), (Ints{12, 0}));
  }
  void verify_first(const SimFault& also = {}) {
    SimFault attention = sense_fault(SenseKey::unit_attention, 0x3f0e);
    attention.matches = io_at(0);
    target_->inject(attention);
    if (also.matches) {
      target_->inject(also);
    }
    EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
  }
};

TEST_P(VerifiedGroupTest, StaysInUse) {
  start_two();
  verify_first();
  ASSERT_TRUE(wait_for_up(2, seconds(1)));
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(spread(), (Ints{12, 0}));
  EXPECT_EQ(snapshot().group_switches, 0U);
}

TEST_P(VerifiedGroupTest, IsLeftWhenThePathDoesNotComeBack) {
  start_two();
  SimFault silent;
  silent.matches = [](const SimCommand& command) {
    return command.portal == 0 && !is_read(command) && !is_write(command);
  };
  silent.count = 0;
  silent.answer = false;
  verify_first(silent);
  EXPECT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(6)));
  EXPECT_EQ(spread(), (Ints{0, 12}));
  EXPECT_EQ(snapshot().active_group, path(1).group);
  target_->clear_faults();
}

INSTANTIATE_TEST_SUITE_P(, VerifiedGroupTest,
                         testing::Values<std::string>("manual", "immediate", "followover", "60"));

TEST_F(PathPolicyTest, PoliciesChangeWhileRequestsAreUnderWay) {
  use_alua();
  start_four();
  for (int i = 0; i < 20; ++i) {
    write(static_cast<std::uint64_t>(i) * 8, 8, i);
  }
  PathPolicySettings changes;
  changes.path_grouping_policy = PathGroupingPolicy::multibus;
  changes.path_selector = PathSelectorKind::historical_service_time;
  device_->change_policies(changes);
  EXPECT_EQ(snapshot().path_grouping_policy, "multibus");
  EXPECT_EQ(snapshot().path_selector, "historical-service-time 0");
  EXPECT_EQ(snapshot().prio, "alua") << "what is not changed stays";
  for (int i = 0; i < 20; ++i) {
    write(static_cast<std::uint64_t>(i) * 8, 8, i + 1);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  const Ints counts = spread(40);
  EXPECT_GT(counts[2] + counts[3], 0);
  changes = {};
  changes.path_selector = PathSelectorKind::queue_length;
  changes.prio = Prioritizer{};
  device_->change_policies(changes);
  EXPECT_EQ(priorities(), (Ints{1, 1, 1, 1}));
  EXPECT_EQ(spread(), (Ints{3, 3, 3, 3}));
}

// One optimized path and two that are not.
TEST_F(PathPolicyTest, ANewGroupingPolicyUsesTheBestGroupNotTheLargest) {
  lun_options_.tpgs = 1;
  lun_options_.port_groups = {
      {.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
      {.tag = 2, .state = AccessState::active_non_optimized, .ports = {2, 3}}};
  for (const Failback::Kind kind : {Failback::Kind::immediate, Failback::Kind::manual}) {
    options_.failback = Failback{kind, {}};
    options_.path_grouping_policy = PathGroupingPolicy::multibus;
    if (!target_) {
      start({1, 2, 2});
    }
    PathPolicySettings changes;
    changes.failback = options_.failback;
    changes.path_grouping_policy = PathGroupingPolicy::multibus;
    device_->change_policies(changes);
    EXPECT_EQ(spread(), (Ints{4, 4, 4}));
    changes = {};
    changes.path_grouping_policy = PathGroupingPolicy::group_by_prio;
    device_->change_policies(changes);
    EXPECT_EQ(spread(), (Ints{12, 0, 0})) << to_string(*options_.failback);
  }
}

TEST_F(PathPolicyTest, OtherSettingsLeaveTheGroupInUse) {
  use_alua();
  options_.failback = Failback{};
  start_four();
  lose_first_side();
  ASSERT_TRUE(first_side_back());
  device_->set_no_path_retry(NoPathRetry(seconds(5)));
  PathPolicySettings changes;
  changes.path_selector = PathSelectorKind::queue_length;
  device_->change_policies(changes);
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  changes.failback = Failback{Failback::Kind::immediate, {}};
  device_->change_policies(changes);
  EXPECT_EQ(spread(), (Ints{6, 6, 0, 0})) << "at once, when that is what is changed";
}

TEST_F(PathPolicyTest, AnArrayTableDecidesWhatIsLeftOpen) {
  ArrayRow row;
  row.vendor = "SIM";
  row.product = "DIS?";
  row.policies.path_grouping_policy = PathGroupingPolicy::failover;
  row.policies.path_selector = PathSelectorKind::queue_length;
  options_.arrays = std::make_shared<ArrayTable>(ArrayTable{row});
  start_four();
  EXPECT_EQ(snapshot().path_grouping_policy, "failover");
  EXPECT_EQ(snapshot().path_selector, "queue-length 0");
  EXPECT_EQ(spread(), (Ints{12, 0, 0, 0}));
}

TEST_F(PathPolicyTest, ReportTargetPortGroupsThatIsRefusedLeavesThePathUsable) {
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
TEST_F(PathPolicyTest, RdacUsesTheOwningControllerAndTheOtherIsGhost) {
  lun_options_.rdac = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start_target({1, 2, 1, 2});
  start_device(false);
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 2 && path(3).state == PathState::ghost; },
                                 seconds(5)));
  EXPECT_EQ(priorities(), (Ints{6, 1, 6, 1}));
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
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

TEST_F(PathPolicyTest, RdacThatTransfersByItselfKeepsToItsOwner) {
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

TEST_F(PathPolicyTest, RdacWithIoshipUsesBothControllersTheOwnerFirst) {
  lun_options_.rdac = true;
  lun_options_.rdac_shared = true;
  options_.prio = make_prioritizer(PrioritizerKind::rdac, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  EXPECT_EQ(priorities(), (Ints{14, 9, 14, 9}));
  EXPECT_EQ(spread(), (Ints{6, 0, 6, 0}));
}

TEST_F(PathPolicyTest, EmcUsesTheDefaultServiceProcessor) {
  lun_options_.emc = true;
  lun_options_.vendor = "DGC";
  lun_options_.emc_owner = lun_options_.emc_default = 1;
  options_.prio = make_prioritizer(PrioritizerKind::emc, std::vector<std::string>()).value();
  start({1, 2, 1, 2});
  EXPECT_EQ(priorities(), (Ints{1, 4, 1, 4}));
  EXPECT_EQ(spread(), (Ints{0, 6, 0, 6}));
}

}  // namespace
}  // namespace iscsi_blkback
