// Groups and priorities of a disk over the real engine and a simulated array, in virtual time.
#include "multipath/groups/path_policies.h"

#include "tests/multipath/groups/path_policy_fixture.h"

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
  for (const char* word : {"", "3601", "-1", "10s", "Manual"}) {
    EXPECT_FALSE(parse_failback(word)) << word;
  }
  EXPECT_EQ(to_string(parse_failback("0").value()), "manual");
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

TEST_F(PathPolicyTest, WeightedpathGoesByTheAddressOfAHostNameByWhichAPathHasComeIn) {
  options_.prio = make_prioritizer(PrioritizerKind::weighted,
                                   std::vector<std::string>{"portal 10.0.0.2 20", "portal * 10"})
                      .value();
  start_target({1, 1, 1});
  refuse(0);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (Session* session : {&add_session(0, {1}), &add_session(2)}) {
    session->start();
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(priorities(), (Ints{20, 10}));
  EXPECT_EQ(snapshot().paths[0].address, "10.0.0.2:3260");
  accept(0);
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
  const std::uint64_t switches = snapshot().group_switches;  // whichever side has come first
  lose_first_side();
  EXPECT_EQ(spread(), (Ints{0, 0, 6, 6}));
  restore(1);
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(spread(), (Ints{0, 12, 0, 0}));
  EXPECT_EQ(snapshot().group_switches, switches + 2);
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

}  // namespace
}  // namespace iscsi_blkback
