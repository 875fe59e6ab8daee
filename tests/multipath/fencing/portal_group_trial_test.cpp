// Whether two portals of a group are of one target is found out by a trial, and only what was found
// out counts as a fence.
#include "multipath/fencing/portal_group_trial.h"

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::minutes;

// --- the decision

TrialFacts all_well() {
  return {.first_up = true,
          .first_ended = true,
          .second_started = true,
          .second_up = true,
          .asked = true,
          .answered = true};
}

TEST(PortalGroupTrialStep, TheSecondSessionFollowsTheFirst) {
  TrialFacts facts;
  EXPECT_EQ(next_step(facts), TrialStep::wait);
  facts.first_up = true;
  EXPECT_EQ(next_step(facts), TrialStep::start_second);
  facts.second_started = true;
  EXPECT_EQ(next_step(facts), TrialStep::wait);
}

TEST(PortalGroupTrialStep, AnEndThatTheSecondLoginDidNotCauseProvesNothing) {
  EXPECT_EQ(next_step({.first_up = true, .first_ended = true}), TrialStep::give_up);
}

// The target may close the old connection before it answers the new login.
TEST(PortalGroupTrialStep, TheEndOfTheFirstCountsOnlyWithTheLoginOfTheSecond) {
  TrialFacts facts = all_well();
  facts.asked = facts.answered = false;
  EXPECT_EQ(next_step(facts), TrialStep::ask);
  facts.second_up = false;
  EXPECT_EQ(next_step(facts), TrialStep::wait);
  facts.time_over = true;
  EXPECT_EQ(next_step(facts), TrialStep::give_up);
}

TEST(PortalGroupTrialStep, ItIsProvenWhenTheDisksOwnSessionsHaveAnswered) {
  TrialFacts facts = all_well();
  EXPECT_EQ(next_step(facts), TrialStep::end_proven);
  facts.answered = false;
  EXPECT_EQ(next_step(facts), TrialStep::wait);
  facts.time_over = true;
  EXPECT_EQ(next_step(facts), TrialStep::give_up);
}

TEST(PortalGroupTrialStep, ADisturbedTrialProvesNothing) {
  TrialFacts facts = all_well();
  facts.disturbed = true;
  EXPECT_EQ(next_step(facts), TrialStep::give_up);
  facts.first_ended = false;
  facts.time_over = true;
  EXPECT_EQ(next_step(facts), TrialStep::give_up);
}

TEST(PortalGroupTrialStep, AFirstSessionThatGoesOnRefutesIt) {
  TrialFacts facts = all_well();
  facts.first_ended = facts.asked = facts.answered = false;
  EXPECT_EQ(next_step(facts), TrialStep::wait);
  facts.time_over = true;
  EXPECT_EQ(next_step(facts), TrialStep::end_refuted);
}

TEST(TrialIsid, IsThatOfNoGuestsAndNoToolsSession) {
  const Isid of_guest{0x80, 1, 2, 3, 0x12, 0x34};
  EXPECT_EQ(trial_isid(of_guest), (Isid{0x80, 1, 2, 3, 0x92, 0x34}));
  const Isid of_lunex{0x80, 1, 2, 3, 0x80, 5};
  EXPECT_EQ(trial_isid(of_lunex), (Isid{0x80, 1, 2, 3, 0xc0, 5}));
}

// --- what is known

class NexusSpacesTest : public testing::Test {
 protected:
  NexusSpacesTest() {
    for (Session& session : sessions_) {
      spaces_.logged_in(session);
    }
  }
  void tried(int one, int other, TrialVerdict verdict, TimePoint now = kNow) {
    spaces_.tried({&at(one), &at(other)}, {spaces_.number(at(one)), spaces_.number(at(other))},
                  verdict, now);
  }
  Session& at(int index) { return sessions_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] bool due(int one, int other, TimePoint now) {
    return spaces_.trial_due(at(one), at(other)) <= now;
  }

  static constexpr TimePoint kNow{std::chrono::hours(100)};
  SimReactor reactor_{1};
  std::array<Session, 4> sessions_{Session(reactor_, {}), Session(reactor_, {}),
                                   Session(reactor_, {}), Session(reactor_, {})};
  NexusSpaces spaces_;
};

TEST_F(NexusSpacesTest, NothingIsKnownAtFirst) {
  EXPECT_FALSE(spaces_.same(at(0), at(1)));
  EXPECT_FALSE(spaces_.tried_in_vain(at(0), at(1)));
  EXPECT_TRUE(due(0, 1, TimePoint{}));
}

TEST_F(NexusSpacesTest, ProofsAreTransitive) {
  tried(0, 1, TrialVerdict::proven);
  tried(2, 1, TrialVerdict::proven);
  EXPECT_TRUE(spaces_.same(at(0), at(2)));
  EXPECT_FALSE(due(0, 2, TimePoint::max() - seconds(1)));
  EXPECT_FALSE(spaces_.same(at(0), at(3)));
}

TEST_F(NexusSpacesTest, WhatDiffersFromOneDiffersFromAll) {
  tried(0, 3, TrialVerdict::refuted);
  tried(1, 0, TrialVerdict::proven);
  EXPECT_FALSE(spaces_.same(at(1), at(3)));
  EXPECT_FALSE(due(1, 3, kNow + std::chrono::hours(1)));
  EXPECT_TRUE(spaces_.tried_in_vain(at(3), at(0)));
}

TEST_F(NexusSpacesTest, ALoginForgetsItsProof) {
  tried(0, 1, TrialVerdict::proven);
  tried(0, 2, TrialVerdict::proven);
  spaces_.logged_in(at(0));
  EXPECT_FALSE(spaces_.same(at(0), at(1)));
  EXPECT_TRUE(spaces_.same(at(1), at(2))) << "these have not logged in anew";
  EXPECT_FALSE(due(0, 1, kNow + seconds(9)));
  EXPECT_TRUE(due(0, 1, kNow + seconds(10)));
}

TEST_F(NexusSpacesTest, AProofOfAnEarlierLoginSaysNothing) {
  const NexusSpaces::Numbers before{spaces_.number(at(0)), spaces_.number(at(1))};
  spaces_.logged_in(at(0));
  spaces_.tried({&at(0), &at(1)}, before, TrialVerdict::proven, kNow);
  EXPECT_FALSE(spaces_.same(at(0), at(1)));
}

TEST_F(NexusSpacesTest, AFailureIsTriedAgainRarely) {
  tried(0, 1, TrialVerdict::refuted);
  EXPECT_FALSE(due(0, 1, kNow + std::chrono::hours(1))) << "nobody has logged in since";
  spaces_.logged_in(at(1));
  EXPECT_FALSE(due(0, 1, kNow + minutes(9)));
  EXPECT_TRUE(due(0, 1, kNow + minutes(10)));
  tried(2, 3, TrialVerdict::inconclusive);
  EXPECT_FALSE(due(2, 3, kNow + minutes(9)));
  EXPECT_TRUE(due(2, 3, kNow + minutes(10)));
}

TEST_F(NexusSpacesTest, NothingIsKnownOfASessionThatHasGone) {
  tried(0, 1, TrialVerdict::proven);
  spaces_.forget(at(0));
  EXPECT_FALSE(spaces_.same(at(0), at(1)));
  spaces_.logged_in(at(0));
  EXPECT_FALSE(spaces_.same(at(0), at(1)));
  EXPECT_TRUE(due(0, 1, kNow)) << "it is another one";
}

// --- the trial, and fences that go by it

class PortalGroupTrialTest : public MultipathTest {
 protected:
  PortalGroupTrialTest() {
    ArrayRow row;
    row.vendor = "LIO-ORG";
    row.policies.portal_group_fences = PortalGroupFences::trial;
    options_.arrays = std::make_shared<const ArrayTable>(ArrayTable{row});
    options_.portal_group_fences.reset();
    options_.marginal.double_failed_time = {};  // a path that is lost again is used again
    lun_options_.vendor = "LIO-ORG";
  }
  void TearDown() override {
    close();
    stop_sessions();
    other_.reset();
    MultipathTest::TearDown();
  }

  // A portal for each, all with tag 1: the first is target_'s, the other one that of a second node
  // with the same target name and the same LUN.
  void start_two_nodes() {
    start_target({1});
    SimTargetOptions other_options = target_options_;
    other_options.portals = {{portal_address(1), 1}};
    other_ = std::make_unique<SimTarget>(reactor_, other_options);
    other_->add_lun(0, lun_);
    target_options_.portals.push_back({portal_address(1), 1});  // for sessions
    start_device();
  }
  // One portal for each node; their sessions, and what they execute, are their own.
  void start_nodes(const std::vector<unsigned>& nodes) {
    start_target(std::vector<std::uint16_t>(nodes.size(), 1));
    for (std::size_t portal = 0; portal < nodes.size(); ++portal) {
      target_->options().portals[portal].node = nodes[portal];
    }
    start_device();
  }
  // Answered at another portal, and kept by this one.
  void lose_a_write_at(std::size_t portal) {
    hold_writes_at(portal);
    GuestRequest& first = at_path(portal, [&]() -> GuestRequest& { return write(0, 8, 1); });
    reactor_.run_for(milliseconds(20));
    ASSERT_GE(target_->held(), 1U);
    refuse(portal);
    ASSERT_EQ(answer(first, seconds(1)), IoStatus::ok);
  }
  void expect_that_it_is_fenced_at_once(Duration at_most = milliseconds(50)) {
    EXPECT_EQ(answer(write(0, 8, 2), at_most), IoStatus::ok);
    expect_newer_data_stays();
  }
  void expect_that_time_alone_fences() {
    GuestRequest& second = write(0, 8, 2);
    reactor_.run_for(seconds(50));
    EXPECT_TRUE(pending(second));
    target_->clear_faults();
    target_->release_held();
    EXPECT_EQ(answer(second, seconds(20)), IoStatus::ok) << "quiesce_time";
    EXPECT_EQ(medium(0), 2);
  }
  void expect_newer_data_stays() {
    target_->clear_faults();
    target_->release_held();
    reactor_.run_for(milliseconds(10));
    EXPECT_EQ(medium(0), 2);
  }
  bool wait_for_trial_session() {
    return reactor_.run_until([this] { return target_->sessions() > sessions_.size(); },
                              seconds(5));
  }
  [[nodiscard]] std::uint64_t losses() const {
    std::uint64_t losses = 0;
    for (const auto& session : sessions_) {
      losses += session->statistics().connection_losses;
    }
    return losses;
  }

  std::unique_ptr<SimTarget> other_;
};

TEST_F(PortalGroupTrialTest, PortalsOfOneNodeFenceForEachOther) {
  start();
  reactor_.run_for(seconds(2));
  EXPECT_EQ(target_->counters.reinstatements, 1U);
  EXPECT_EQ(target_->sessions(), 2U) << "both sessions of the trial have logged out";
  EXPECT_EQ(losses(), 0U);
  EXPECT_FALSE(path(0).fenced_alone);
  lose_a_write_at(0);
  expect_that_it_is_fenced_at_once();
}

TEST_F(PortalGroupTrialTest, ThePortalsAreThoseByWhichThePathsHaveComeIn) {
  start_target({2, 1, 1});
  refuse(0);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (Session* session : {&add_session(0, {1}), &add_session(0, {2})}) {
    session->start();
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  accept(0);
  reactor_.run_for(seconds(2));
  EXPECT_EQ(target_->counters.reinstatements, 1U);
  EXPECT_EQ(losses(), 0U);
  EXPECT_FALSE(path(0).fenced_alone);
}

TEST_F(PortalGroupTrialTest, ATrialLeavesTheReserveOfSessionsToFences) {
  constexpr std::size_t kOthers = SessionBudget::kMaxSessions - SessionBudget::kFenceReserve;
  ASSERT_TRUE(fencing_.budget.take(kOthers - 1));
  start();
  reactor_.run_for(seconds(30));
  EXPECT_EQ(target_->counters.logins, 2U) << "of the paths";
  fencing_.budget.give_back(kOthers - 1);
  reactor_.run_for(seconds(12));
  EXPECT_EQ(target_->counters.reinstatements, 1U);
  EXPECT_EQ(fencing_.budget.taken(), 0U) << "both sessions of the trial are given back";
}

TEST_F(PortalGroupTrialTest, PortalsOfTwoNodesDoNot) {
  start_two_nodes();
  reactor_.run_for(seconds(10));
  EXPECT_EQ(target_->sessions(), 1U);
  EXPECT_EQ(other_->sessions(), 1U);
  EXPECT_EQ(losses(), 0U);
  EXPECT_TRUE(path(0).fenced_alone && path(1).fenced_alone);
  const std::uint64_t logins = other_->counters.logins;
  lose_a_write_at(0);
  expect_that_time_alone_fences();
  EXPECT_EQ(other_->counters.logins, logins) << "for nothing";
}

TEST_F(PortalGroupTrialTest, AFenceForADiskThatVouchesIsNoneForOneThatDoesNot) {
  start_nodes({0, 1});
  target_->add_lun(300, std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2}));
  MultipathOptions vouches = options_;
  vouches.portal_group_fences = PortalGroupFences::yes;
  auto second = std::make_unique<MultipathDevice>(reactor_, fencing_, vouches, *this);
  for (const auto& session : sessions_) {
    ASSERT_TRUE(second->add_path(*session, 300));
  }
  ASSERT_TRUE(reactor_.run_until([&] { return second->snapshot().paths_up() == 2; }));
  reactor_.run_for(seconds(10));
  hold_writes_at(0);
  const auto write_at_0 = [this]() -> GuestRequest& {
    return at_path(0, [this]() -> GuestRequest& { return write(0, 8, 1); });
  };
  GuestRequest& lost = write_at_0();
  device_.swap(second);
  GuestRequest& lost_too = write_at_0();
  reactor_.run_for(milliseconds(20));
  refuse(0);
  ASSERT_EQ(answer(lost, seconds(1)), IoStatus::ok);
  ASSERT_EQ(answer(lost_too, seconds(1)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, 8, 2), seconds(1)), IoStatus::ok) << "fenced through portal 1";
  device_.swap(second);
  expect_that_time_alone_fences();
  device_.swap(second);
  close();
  device_.swap(second);
}

// Where it comes to is the first node again, which knows its first session.
TEST_F(PortalGroupTrialTest, ALoginAtAnotherAddressOfTheFirstPathSaysNothingOfTheSecond) {
  start_target({1, 1});
  SimTargetOptions other_options = target_options_;
  other_options.portals = {{portal_address(2), 1}};
  other_ = std::make_unique<SimTarget>(reactor_, other_options);
  other_->add_lun(0, lun_);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (Session* session : {&add_session(0, {1}), &add_session(2)}) {
    session->start();
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  reactor_.network().set_refusing(portal_address(2), true);  // new connections
  reactor_.run_for(seconds(10));
  EXPECT_EQ(target_->counters.reinstatements, 0U);
  EXPECT_TRUE(path(0).fenced_alone && path(1).fenced_alone);
}

TEST_F(PortalGroupTrialTest, UntilThereIsAProofNothingIsAFence) {
  start();
  EXPECT_EQ(target_->counters.reinstatements, 0U);
  lose_a_write_at(0);
  expect_that_time_alone_fences();
}

TEST_F(PortalGroupTrialTest, TwoNodesAreFoundOutOnce) {
  start_two_nodes();
  reactor_.run_for(seconds(10));
  const std::uint64_t logins = target_->counters.logins;
  EXPECT_EQ(logins, 2U);
  reactor_.run_for(minutes(30));
  EXPECT_EQ(target_->counters.logins, logins);
}

// One of the pair is a sibling that has been found to be none; the other one is found.
TEST_F(PortalGroupTrialTest, TheFenceGoesThroughThePortalThatIsProven) {
  start_target({1, 1});
  SimTargetOptions other_options = target_options_;
  other_options.portals = {{portal_address(2), 1}};
  other_ = std::make_unique<SimTarget>(reactor_, other_options);
  other_->add_lun(0, lun_);
  target_options_.portals.push_back({portal_address(2), 1});
  start_device();
  reactor_.run_for(seconds(20));
  EXPECT_FALSE(path(0).fenced_alone || path(1).fenced_alone);
  EXPECT_TRUE(path(2).fenced_alone);
  const std::uint64_t logins = other_->counters.logins;
  EXPECT_EQ(logins, 2U) << "one trial for the two that are the same";
  lose_a_write_at(0);
  expect_that_it_is_fenced_at_once();
  EXPECT_EQ(other_->counters.logins, logins);
}

TEST_F(PortalGroupTrialTest, ThreePortalsNeedTwoTrials) {
  start({1, 1, 1});
  reactor_.run_for(seconds(30));
  EXPECT_EQ(target_->counters.reinstatements, 2U);
  lose_a_write_at(2);
  refuse(0);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok) << "through portal 1";
  expect_newer_data_stays();
}

// A login that takes long leaves time for what happens meanwhile.
class CutTrialTest : public PortalGroupTrialTest {
 protected:
  void start_and_wait_for_the_first_login() {
    start();
    reactor_.network().set_latency(portal_address(1), milliseconds(100));
    ASSERT_TRUE(wait_for_trial_session());
    reactor_.run_for(milliseconds(50));
    ASSERT_EQ(target_->counters.reinstatements, 0U);
  }
  void expect_nothing_proven() {
    reactor_.run_for(seconds(10));
    ASSERT_TRUE(wait_for_up(2));
    EXPECT_EQ(target_->sessions(), 2U);
    EXPECT_TRUE(path(0).fenced_alone);
    lose_a_write_at(0);
    expect_that_time_alone_fences();
  }
};

TEST_F(CutTrialTest, ACutOfTheFirstPortalProvesNothing) {
  start_and_wait_for_the_first_login();
  reactor_.network().reset_connections(portal_address(0));
  expect_nothing_proven();
}

TEST_F(CutTrialTest, ACutOfTheSecondPortalProvesNothing) {
  start_and_wait_for_the_first_login();
  reactor_.network().reset_connections(portal_address(1));
  expect_nothing_proven();
}

TEST_F(CutTrialTest, ARestartOfTheTargetProvesNothing) {
  start_and_wait_for_the_first_login();
  target_->stop();
  target_->start();
  expect_nothing_proven();
}

TEST_F(CutTrialTest, SilenceProvesNothing) {
  start_and_wait_for_the_first_login();
  drop_silently(0);
  reactor_.run_for(seconds(10));
  reactor_.network().set_dropping(portal_address(0), false);
  expect_nothing_proven();
}

TEST_F(CutTrialTest, ItIsTriedAgainAfterTenMinutes) {
  start_and_wait_for_the_first_login();
  reactor_.network().reset_connections(portal_address(0));
  reactor_.run_for(minutes(9));
  EXPECT_TRUE(path(0).fenced_alone);
  reactor_.run_for(minutes(2));
  EXPECT_FALSE(path(0).fenced_alone);
  lose_a_write_at(0);
  expect_that_it_is_fenced_at_once(seconds(2));
}

// Its address may be another node's by then.
TEST_F(PortalGroupTrialTest, ASessionThatLogsInAgainIsTriedAgain) {
  start();
  reactor_.run_for(seconds(2));
  ASSERT_EQ(target_->counters.reinstatements, 1U);
  reactor_.network().reset_connections(portal_address(0));
  reactor_.run_for(milliseconds(10));
  ASSERT_TRUE(wait_for_up(2));
  for (int i = 0; i < 8; ++i) {
    ASSERT_EQ(answer(read(100, 8)), IoStatus::ok);  // it has told of its unit attention
  }
  lose_a_write_at(0);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(second)) << "not proven yet";
  target_->clear_faults();
  accept(0);
  EXPECT_EQ(answer(second, seconds(5)), IoStatus::ok) << "by its own login";
  EXPECT_EQ(target_->counters.reinstatements, 2U);
  reactor_.run_for(seconds(20));
  EXPECT_EQ(target_->counters.reinstatements, 3U) << "another trial";
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

// It was at the one node when the trial was made.
TEST_F(PortalGroupTrialTest, AnAddressThatMovesToAnotherNodeTakesNoProofAlong) {
  start();
  reactor_.run_for(seconds(2));
  SimTargetOptions other_options = target_options_;
  other_options.portals = {{portal_address(1), 1}};
  target_->close_portal(1);
  reactor_.run_for(milliseconds(10));
  other_ = std::make_unique<SimTarget>(reactor_, other_options);
  other_->add_lun(0, lun_);
  ASSERT_TRUE(wait_for_up(2));
  lose_a_write_at(0);
  expect_that_time_alone_fences();
}

TEST_F(PortalGroupTrialTest, ATargetThatSuffersNoSecondSessionOfTheDiskIsNotAskedAgainSoon) {
  start();
  target_->refuse_logins(0, 0x0206);
  reactor_.run_for(seconds(30));
  const std::uint64_t logins = target_->counters.logins;
  reactor_.run_for(minutes(5));
  EXPECT_EQ(target_->counters.logins, logins);
  EXPECT_TRUE(path(0).fenced_alone);
  target_->refuse_logins(0, 0);
}

TEST_F(PortalGroupTrialTest, WhereTheOperatorHasDecidedNothingIsTried) {
  for (const PortalGroupFences decided : {PortalGroupFences::yes, PortalGroupFences::no}) {
    options_.portal_group_fences = decided;
    if (!target_) {
      start();
    } else {
      device_->change_policies(options_);
    }
    reactor_.run_for(seconds(10));
    EXPECT_EQ(target_->counters.logins, 2U) << to_string(decided);
  }
}

TEST_F(PortalGroupTrialTest, PortalsOfDifferentGroupsAreNotTried) {
  start({1, 2});
  reactor_.run_for(seconds(10));
  EXPECT_EQ(target_->counters.logins, 2U);
  EXPECT_FALSE(path(0).fenced_alone);
}

TEST_F(PortalGroupTrialTest, WhatIsRedirectedIsNotTried) {
  start_target();
  target_->redirect_logins(0, portal_address(1).to_string());
  start_device();
  reactor_.run_for(seconds(10));
  EXPECT_LE(target_->counters.logins, 3U);
  EXPECT_EQ(target_->counters.reinstatements, 0U);
}

TEST_F(PortalGroupTrialTest, ASuspendedDiskTriesNothing) {
  start();
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(10));
  EXPECT_EQ(target_->counters.logins, 2U);
  device_->set_guest({GuestState::runs});
  reactor_.run_for(seconds(2));
  EXPECT_EQ(target_->counters.reinstatements, 1U);
}

TEST_F(PortalGroupTrialTest, ASuspendEndsTheTrial) {
  start();
  ASSERT_TRUE(wait_for_trial_session());
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(20));
  EXPECT_EQ(target_->sessions(), 2U);
  device_->set_guest({GuestState::runs});
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(path(0).fenced_alone);
}

TEST_F(PortalGroupTrialTest, ACloseWaitsForTheEndOfTheTrialsSessionsOnly) {
  start();
  ASSERT_TRUE(wait_for_trial_session());
  const TimePoint before = reactor_.now();
  close();
  EXPECT_LT(reactor_.now() - before, milliseconds(20));
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(target_->sessions(), 2U);
}

TEST_F(PortalGroupTrialTest, ACloseDoesNotWaitLongForATargetThatDoesNotAnswerALogout) {
  start();
  ASSERT_TRUE(wait_for_trial_session());
  drop_silently(0);
  drop_silently(1);
  const TimePoint before = reactor_.now();
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(5)));
  EXPECT_LE(reactor_.now() - before, milliseconds(1100));
  device_.reset();
  reactor_.network().set_dropping(portal_address(0), false);
  reactor_.network().set_dropping(portal_address(1), false);
}

TEST_F(PortalGroupTrialTest, APathThatIsRemovedEndsTheTrial) {
  start({1, 1, 2});
  ASSERT_TRUE(wait_for_trial_session());
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(device_->snapshot().leaving, 0U);
  EXPECT_EQ(target_->sessions(), 3U);
  reactor_.run_for(seconds(10));
  EXPECT_EQ(target_->sessions(), 3U);
}

TEST_F(PortalGroupTrialTest, TheGuestNoticesNothing) {
  start();
  const TimePoint until = reactor_.now() + seconds(5);
  while (reactor_.now() < until) {
    const GuestRequest& request = write(0, 8, 1);
    ASSERT_EQ(answer(request), IoStatus::ok);
    EXPECT_LT(request.took(), milliseconds(5));
  }
  EXPECT_EQ(target_->counters.reinstatements, 1U);
  EXPECT_EQ(losses(), 0U);
  EXPECT_EQ(path(0).failures + path(1).failures, 0U);
}

// --- fences by a command of the logical unit reach what the portal's own node has

class TrialAndLunFence : public PortalGroupTrialTest {
 protected:
  TrialAndLunFence() {
    options_.exclusive_luns = true;
    options_.fence_settle_time = seconds(5);
  }
};

TEST_F(TrialAndLunFence, ANodesLogicalUnitResetIsNoFenceOfWhatAnotherNodeHas) {
  start_nodes({0, 1});
  reactor_.run_for(seconds(10));
  lose_a_write_at(0);
  expect_that_time_alone_fences();
  EXPECT_EQ(target_->counters.resets, 0U) << "for nothing";
}

TEST_F(TrialAndLunFence, AResetVouchesOnlyForItsOwnNode) {
  start_nodes({0, 0, 1, 2});
  reactor_.run_for(seconds(20));
  ASSERT_TRUE(path(2).fenced_alone && path(3).fenced_alone);
  ASSERT_FALSE(path(0).fenced_alone || path(1).fenced_alone);
  target_->refuse_logins(1, 0x0301);  // so that there is no other fence
  hold_writes_at(0);
  hold_writes_at(2);
  GuestRequest& here = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  GuestRequest& elsewhere = at_path(2, [&]() -> GuestRequest& { return write(16, 8, 1); });
  reactor_.run_for(milliseconds(20));
  refuse(0);
  refuse(2);
  ASSERT_EQ(answer(here, seconds(1)), IoStatus::ok);
  ASSERT_EQ(answer(elsewhere, seconds(1)), IoStatus::ok);
  GuestRequest& after_reset = write(0, 8, 2);
  GuestRequest& held = write(16, 8, 2);
  EXPECT_EQ(answer(after_reset, seconds(12)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  EXPECT_TRUE(pending(held));
  target_->clear_faults();
  target_->release_held();
  EXPECT_EQ(answer(held, seconds(60)), IoStatus::ok) << "quiesce_time";
  EXPECT_EQ(medium(0), 2);
  EXPECT_EQ(medium(16), 2);
}

TEST_F(TrialAndLunFence, ANodesPreemptionIsNoFenceOfWhatAnotherNodeHas) {
  options_.exclusive_luns = false;
  options_.reservation_key = 0x5a00;
  start_nodes({0, 1});
  reactor_.run_for(seconds(10));
  lose_a_write_at(0);
  expect_that_time_alone_fences();
  EXPECT_EQ(target_->counters.preemptions, 0U) << "for nothing";
}

TEST_F(TrialAndLunFence, WithoutTrialsEither) {
  lun_options_.vendor = "ACME";
  start_nodes({0, 1});
  reactor_.run_for(seconds(10));
  lose_a_write_at(0);
  expect_that_time_alone_fences();
}

// A fence by login does not get through there.
TEST_F(TrialAndLunFence, AResetThroughAProvenPortalIsAFence) {
  start();
  reactor_.run_for(seconds(3));
  ASSERT_EQ(target_->counters.reinstatements, 1U);
  target_->refuse_logins(1, 0x0301);
  lose_a_write_at(0);
  GuestRequest& second = write(0, 8, 2);
  EXPECT_EQ(answer(second, seconds(7)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  target_->refuse_logins(1, 0);
  expect_newer_data_stays();
}

TEST_F(TrialAndLunFence, AResetThroughTheSamePortalIsAFence) {
  start_target({1});
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (int path = 0; path < 2; ++path) {
    Session& session = add_session(0);
    session.start();
    ASSERT_TRUE(device_->add_path(session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  SimFault hold;
  hold.matches = [isid = sessions_[0]->options().isid](const SimCommand& command) {
    return command.isid == isid && is_write(command);
  };
  hold.count = 0;
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  GuestRequest& first = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  target_->refuse_logins(0, 0x0301);
  sessions_[0]->drop(Error{ErrorCode::io, "lost"});
  ASSERT_EQ(answer(first, seconds(1)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  EXPECT_EQ(answer(second, seconds(7)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  target_->refuse_logins(0, 0);
  expect_newer_data_stays();
}

TEST_F(TrialAndLunFence, WhereTheOperatorVouchesForTheTargetAnyPortalsResetIsAFence) {
  options_.portal_group_fences = PortalGroupFences::yes;
  start({1, 2});
  lose_a_write_at(0);
  EXPECT_EQ(answer(write(0, 8, 2), seconds(7)), IoStatus::ok);
  EXPECT_EQ(target_->counters.resets, 1U);
  expect_newer_data_stays();
}

}  // namespace
}  // namespace iscsi_blkback
